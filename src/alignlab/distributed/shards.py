"""Parameters wherever a strategy keeps them: whole, or cut up by FSDP2 or ZeRO-3."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def local_shards(parameters: Iterable[Tensor]) -> list[Tensor]:
    """What this rank stores of each parameter: the parameter itself unless FSDP2 or ZeRO-3 has cut it up.

    For elementwise updates outside of a step, where a sharded parameter's own value may not be there; call
    `after_update` on the parameters that were changed. Parameters of equal shape are cut alike.
    """
    return [_shard(p).detach() for p in parameters]


def after_update(parameters: Iterable[Tensor]) -> None:
    """Drops the whole copies that ZeRO-3 keeps of small parameters, whose shards were changed; it gathers them anew."""
    for p in parameters:
        if hasattr(p, "ds_tensor") and p.numel() == p.ds_numel:
            p.partition()


@torch.no_grad()
def gathered(parameter: Tensor) -> Tensor:
    """A parameter's whole value on every rank, all ranks together; the parameter itself unless FSDP2 or ZeRO-3 has cut
    it up.
    """
    if hasattr(parameter, "full_tensor"):
        return parameter.full_tensor()
    if hasattr(parameter, "ds_tensor"):
        import deepspeed  # only where it is at work

        with deepspeed.zero.GatheredParameters([parameter]):
            return parameter.detach().clone()
    return parameter


def wait_for_fetches(module: nn.Module) -> None:
    """Lets go of what ZeRO-3 fetches ahead and nobody will use, lest it is gathered while it is on its way: after a
    validation that runs fewer parts than training does.
    """
    fetches = getattr(module, "ds_inflight_param_registry", {})
    for parameter, handle in list(fetches.items()):
        handle.wait()
        if not parameter.ds_persist:
            parameter.partition()
    fetches.clear()


def is_sharded(parameter: Tensor) -> bool:
    """Whether FSDP2 or ZeRO-3 has cut this parameter up: outside of its module's forward its value may not be there."""
    return hasattr(parameter, "to_local") or hasattr(parameter, "ds_tensor")


def _shard(parameter: Tensor) -> Tensor:
    if hasattr(parameter, "ds_tensor"):
        return parameter.ds_tensor
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter


@torch.no_grad()
def clamp_parameter(parameter: Tensor, low: float, high: float) -> None:
    """Clamps a parameter in place wherever it is stored, the exact copy that ZeRO's optimizer steps included."""
    copies = [_shard(parameter)]
    if hasattr(parameter, "_z3_optimizer") and parameter.requires_grad:
        copies.append(parameter._z3_optimizer._get_fp32_opt_state_partition(parameter, release_swap_buffers=False)[0])
    elif getattr(parameter, "_hp_mapping", None) is not None:
        copies.append(parameter._hp_mapping.get_hp_fragment())
    for copy in copies:
        copy.detach().clamp_(low, high)
    after_update([parameter])
