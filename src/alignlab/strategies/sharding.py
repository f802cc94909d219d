"""Which parts of a model FSDP2 shards together, and a proof that nothing was left out.

A module that should be gathered and freed as one unit (a transformer block) carries `entry_points`: the names of its
methods that use parameters, none of which calls another. Blocks of `transformers` models are found by the names these
models give. What lies outside every unit (embeddings, projections, heads, temperature) belongs to the system itself
and is whole from the start of a step to the end of its backward pass.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor

from alignlab.files.checksums import FILE, write_sums

# Methods of a LightningModule whose calls count as its forward.
STEPS = ("training_step", "validation_step", "test_step", "predict_step")


def shard(module: nn.Module, mesh: DeviceMesh, *, reshard_after_forward: bool = True, offload: bool = False) -> int:
    """Shards a system in place over a mesh of one dimension and returns the number of units, the system itself not
    counted.

    Every parameter is cut along its first dimension; gradients are averaged over the mesh as DDP's are.
    reshard_after_forward: free a unit's parameters after its forward and gather them again for its backward; False
    keeps them.
    offload: keep shards, gradients and optimizer on the host.
    Raises ValueError for 0-d parameters, for units inside units, and where a parameter is left unsharded.
    """
    scalars = [name for name, p in module.named_parameters() if p.ndim == 0]
    if scalars:
        raise ValueError(f"trainer=fsdp can't shard the 0-d parameter {scalars[0]}: give it the shape (1,)")
    policy = CPUOffloadPolicy(pin_memory=torch.cuda.is_available()) if offload else OffloadPolicy()
    parts = list(units(module))
    for unit in parts:
        fully_shard(unit, mesh=mesh, reshard_after_forward=reshard_after_forward, offload_policy=policy)
        for name in getattr(unit, "entry_points", ()):
            register_fsdp_forward_method(unit, name)
    fully_shard(module, mesh=mesh, reshard_after_forward=False, offload_policy=policy)
    for name in forwards_of(module):
        if callable(getattr(module, name, None)):
            register_fsdp_forward_method(module, name)
    check_sharded(module)
    return len(parts)


def forwards_of(module: nn.Module) -> tuple[str, ...]:
    """Methods of a system that count as its forward pass: `forwards`, for one that does passes within a step."""
    return getattr(module, "forwards", STEPS)


def units(module: nn.Module) -> Iterator[nn.Module]:
    """Modules to shard as one: those with `entry_points`, and the blocks that a `transformers` model says not to
    split.
    """
    names = {name for part in module.modules() for name in getattr(part, "_no_split_modules", None) or ()}
    inside: set[int] = set()
    for part in module.modules():
        if not (hasattr(part, "entry_points") or type(part).__name__ in names) or id(part) in inside:
            continue
        inside.update(id(child) for child in part.modules())
        if any(True for _ in part.parameters()):
            yield part


def check_sharded(module: nn.Module) -> None:
    """Raises ValueError naming the parameters that no mesh shards: nobody would synchronise their gradients."""
    left = [name for name, p in module.named_parameters() if not isinstance(p, DTensor)]
    if left:
        shown = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
        raise ValueError(f"trainer=fsdp left {shown} unsharded, so no rank would learn of the others' gradients")


def sharded_matrices(parameter: DTensor, update: DTensor) -> Iterator[tuple[Tensor, Callable[[Tensor], None]]]:
    """`alignlab.optim.muon.Assemble` for FSDP2: a parameter is one matrix, whose rows are spread over the ranks."""

    def put(whole: Tensor) -> None:
        own = whole.chunk(update.device_mesh.size())  # fewer chunks than ranks if there are fewer rows
        rank = update.device_mesh.get_local_rank()
        if rank < len(own):
            update.to_local().copy_(own[rank])

    yield update.full_tensor(), put


def write_own_sums(strategy: ParallelStrategy, folder: Path) -> None:
    """Writes check sums of a sharded checkpoint, each rank those of its share of the files; all ranks together."""
    strategy.barrier()
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(FILE))
    strategy.barrier()  # nobody sees another's list among the files
    write_sums(folder, files[strategy.global_rank :: strategy.world_size], f"{FILE}.{strategy.global_rank}")
