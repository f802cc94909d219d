"""Memory that training asks for before the first activation: parameters, gradients, optimizer states and buffers, per
rank.

Legend: P trainable parameters, F frozen ones (teacher, frozen towers), R ranks. Sizes in bytes.
"""

from typing import Literal, NamedTuple

from torch import nn

Strategy = Literal["none", "ddp", "fsdp", "deepspeed_1", "deepspeed_2", "deepspeed_3"]
Precision = Literal["32-true", "bf16-mixed", "bf16-true"]

ADAMW_STATES = 2  # tensors of a parameter's size that the optimizer keeps; Muon: 1


class Counts(NamedTuple):
    """What a system consists of, in elements; buffers in bytes."""

    trainable: int
    frozen: int
    buffer_bytes: int  # queues and the like; never sharded


class Memory(NamedTuple):
    """Bytes of one rank between two steps, gradients still there."""

    parameters: int
    gradients: int
    optimizer: int  # states, and the float32 copy of weights where the strategy keeps one
    buffers: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)


def counts(module: nn.Module) -> Counts:
    """Count a module that is not sharded yet."""
    parameters = list(module.parameters())
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    buffers = sum(b.numel() * b.element_size() for b in module.buffers())
    return Counts(trainable, sum(p.numel() for p in parameters) - trainable, buffers)


def training_memory(
    size: Counts,
    strategy: Strategy,
    ranks: int = 1,
    precision: Precision = "32-true",
    *,
    optimizer_states: int = ADAMW_STATES,
    offload_optimizer: bool = False,
    offload_parameters: bool = False,
) -> Memory:
    """Bytes that each rank's device holds throughout training, activations and buffers of communication apart.

    One device and DDP (arXiv:2006.15704) hold everything: (P + F) b + P b + 2 P b with b bytes an element. Fully
    sharded, each term is divided by R (arXiv:2304.11277). ZeRO (arXiv:1910.02054, sec. 5) divides optimizer states
    (stage 1), gradients too (2), parameters too (3); DeepSpeed keeps a float32 copy of the weights beside them in any
    precision, cut like the optimizer states. With bf16-mixed, DeepSpeed holds weights and gradients in bfloat16;
    elsewhere autocast casts what it needs and drops it again. Raises ValueError for an unknown strategy or precision,
    and for ranks below 1.
    """
    if strategy not in Strategy.__args__ or precision not in Precision.__args__ or ranks < 1:
        raise ValueError(f"no arithmetic for strategy={strategy}, precision={precision}, ranks={ranks}")
    deepspeed = strategy.startswith("deepspeed")
    stage = {"none": 0, "ddp": 0, "fsdp": 3}.get(strategy) if not deepspeed else int(strategy[-1])
    width = 2 if precision == "bf16-true" or (deepspeed and precision == "bf16-mixed") else 4
    state_width, copies = (4, 1) if deepspeed else (width, 0)
    elements = size.trainable + size.frozen
    parameters = width * _part(elements, ranks if stage == 3 else 1)
    optimizer = state_width * (optimizer_states + copies) * _part(size.trainable, ranks if stage >= 1 else 1)
    return Memory(
        parameters=0 if offload_parameters else parameters,
        gradients=0 if offload_optimizer else width * _part(size.trainable, ranks if stage >= 2 else 1),
        optimizer=0 if offload_optimizer else optimizer,
        buffers=size.buffer_bytes,
    )


def _part(elements: int, ranks: int) -> int:
    return -(-elements // ranks)
