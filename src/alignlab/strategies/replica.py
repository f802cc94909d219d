"""A whole copy of a sharded system: for evaluation that each rank does at its own pace, and for what one rank writes
alone.
"""

from collections import OrderedDict
from typing import Literal

import lightning.pytorch as pl
import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from alignlab.callbacks.keeping.random_states import preserved
from alignlab.distributed.collectives import rank_zero
from alignlab.distributed.shards import gathered, is_sharded, wait_for_fetches
from alignlab.strategies.sharding import forwards_of

HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_forward_pre_hooks_with_kwargs", "_forward_hooks_with_kwargs")


def sharded(system: nn.Module) -> bool:
    """Whether FSDP2 or ZeRO-3 has cut up parameters of this system."""
    return any(is_sharded(p) for p in system.parameters())


def whole(
    system: pl.LightningModule, on: Literal["every rank", "rank zero"] = "every rank"
) -> pl.LightningModule | None:
    """The system itself, or where its parameters are sharded a copy that holds every parameter whole, on this rank's
    device.

    A sharded forward is a collective: ranks with different numbers of batches, or one that works alone, would wait for
    the others for ever. The copy needs the memory of all parameters while it lives; it shares everything that isn't a
    parameter. All ranks call this together; random states stay as they were.

    Returns:
        None on ranks for which there is none: with on="rank zero", the others of a sharded system.
    """
    if not sharded(system):
        return system
    device = next(system.parameters()).device
    keep = on == "every rank" or rank_zero()
    with preserved(device):
        replica = _unsharded_twin(system) if keep else None
    parts = dict(replica.named_parameters(remove_duplicate=False)) if keep else {}
    wait_for_fetches(system)
    with torch.no_grad():
        for name, parameter in system.named_parameters(remove_duplicate=False):
            value = gathered(parameter)
            if keep:
                parts[name].copy_(value)
        for name, buffer in system.named_buffers(remove_duplicate=False) if keep else ():
            replica.get_buffer(name).copy_(buffer)
    return replica.train(system.training) if keep else None


def _unsharded_twin(system: pl.LightningModule) -> pl.LightningModule:
    """An object of the system's own class, with its attributes and a net built anew, and none of what sharding added.

    `fully_shard` gives a module another class, whose constructor `copy.copy` can't call, forward hooks, and methods of
    its own for every step.
    """
    kind = next(c for c in type(system).__mro__ if not issubclass(c, FSDPModule))
    twin = kind.__new__(kind)
    twin.__dict__.update({key: value for key, value in system.__dict__.items() if key not in forwards_of(system)})
    twin.__dict__.update({name: OrderedDict() for name in HOOKS})
    twin._modules = {name: part for name, part in system._modules.items() if part is None or not sharded(part)}
    twin._parameters, twin._buffers = {}, dict(system._buffers)
    twin.net = twin.method = None
    twin.configure_model()
    return twin.to(device=system.device, dtype=next(system.parameters()).dtype)
