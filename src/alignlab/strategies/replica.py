"""A whole copy of a sharded system, for evaluation that each rank does at its own pace."""

import copy

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from alignlab.distributed import is_sharded


def whole(system: pl.LightningModule) -> pl.LightningModule:
    """The system itself, or where its parameters are sharded a copy whose net and teacher hold every parameter whole, on this rank's device.

    A sharded forward is a collective: ranks with different numbers of batches would wait for each other for ever. The copy needs the memory
    of all parameters while it lives; it shares buffers and everything that isn't a parameter. All ranks call this together.
    """
    if not any(is_sharded(p) for p in system.parameters()):
        return system
    replica = copy.copy(system)
    replica._modules, replica._parameters, replica._buffers = {}, {}, {}
    replica.net = None
    replica.configure_model()
    replica.to(device=system.device, dtype=next(system.parameters()).dtype)
    parts = dict(replica.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, parameter in system.named_parameters(remove_duplicate=False):
            parts[name].copy_(gathered(parameter))
        for name, buffer in system.named_buffers(remove_duplicate=False):
            replica.get_buffer(name).copy_(buffer)
    return replica.train(system.training)


def gathered(parameter: nn.Parameter) -> Tensor:
    """A sharded parameter's whole value, on every rank."""
    if hasattr(parameter, "full_tensor"):
        return parameter.full_tensor()
    if hasattr(parameter, "ds_tensor"):
        import deepspeed  # only where it is at work

        with deepspeed.zero.GatheredParameters([parameter]):
            return parameter.detach().clone()
    return parameter
