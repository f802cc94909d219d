"""Gradients that ZeRO has averaged and cut up: their norm before a step, and how they are dropped without one.

All ranks call these together, after the backward pass of a step's last micro-batch.
"""

from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def norm(optimizer: Any) -> Tensor:
    """L2 norm over all parameters and ranks, (); NaN where a gradient isn't finite, whose norm ZeRO gives as -1."""
    if _stage_3(optimizer):
        norms = optimizer._get_norm_groups()
    elif optimizer.cpu_offload:
        norms = [optimizer.complete_grad_norm_calculation_for_cpu_offload(p) for p in optimizer.params_in_partition]
    else:
        norms = [
            optimizer.get_grad_norm_direct(optimizer.averaged_gradients[index], parameters)
            for index, parameters in enumerate(optimizer.params_in_partition)
        ]
    table = torch.stack([torch.as_tensor(value, dtype=torch.float32) for value in norms])
    whole = torch.linalg.vector_norm(table) / optimizer.loss_scale
    return torch.where((table < 0).any(), torch.nan, whole)


def forget(optimizer: Any) -> None:
    """Drops the gradients: what ZeRO does itself where a gradient of float16 has overflowed."""
    optimizer.zero_grad(set_to_none=True)
    if _stage_3(optimizer):
        optimizer._pre_step()
        optimizer._overflow_clean_up(optimizer.loss_scale)
        return
    optimizer.micro_step_id = -1
    getattr(optimizer, "_release_preflattened_grad_buffers", lambda: None)()
    if optimizer.cpu_offload:
        optimizer.reset_cpu_buffers()
    for key in optimizer.averaged_gradients:
        optimizer.averaged_gradients[key] = optimizer.all_grad_tensors[key] = None


def _stage_3(optimizer: Any) -> bool:
    return hasattr(optimizer, "fp32_partitioned_groups_flat")
