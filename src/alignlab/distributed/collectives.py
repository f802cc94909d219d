"""What losses and evaluators need of `torch.distributed`: rank, gather with and without gradient, mean over ranks.

Everything is the identity when no process group is initialised. Legend: R ranks, B rows per rank (the same on all
ranks).
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# torch 2.13 renamed both
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def _initialised() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number, 0 when there is only one."""
    return dist.get_rank() if _initialised() else 0


def world_size() -> int:
    """Number of processes, 1 without a process group."""
    return dist.get_world_size() if _initialised() else 1


def rank_zero() -> bool:
    """Whether this process is the one that writes files and prints."""
    return rank() == 0


@torch.no_grad()
def all_gather(x: Tensor) -> Tensor:
    """Concatenate the rows of all ranks in order of rank, without gradient: (B, ...) -> (R*B, ...)."""
    if world_size() == 1:
        return x.detach()
    x = x.detach().contiguous()
    gathered = x.new_empty(world_size(), *x.shape)
    _all_gather(gathered.view(-1, *x.shape[1:]), x)
    return gathered.flatten(0, 1)


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.rows = x.shape[0]
        return all_gather(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        if dist.get_backend() == "gloo":  # not every gloo build has a reduce-scatter
            gradient = gradient.clone()
            dist.all_reduce(gradient)
            return gradient[rank() * ctx.rows : (rank() + 1) * ctx.rows]
        mine = gradient.new_empty(ctx.rows, *gradient.shape[1:])
        _reduce_scatter(mine, gradient)
        return mine


def all_gather_with_grad(x: Tensor) -> Tensor:
    """Concatenate the rows of all ranks so that gradients flow back to the rank a row came from: (B, ...) -> (R*B,
    ...).

    Backward returns to each rank the *sum* over ranks of the gradients of its rows. If rank r's loss is the mean over
    its B rows, DDP's average over ranks then equals the gradient of one process with R*B rows.
    """
    return x if world_size() == 1 else _AllGather.apply(x)


def reduce_sum(x: Tensor) -> Tensor:
    """Sum over ranks, without gradient."""
    return _reduced(x, dist.ReduceOp.SUM)


def reduce_mean(x: Tensor) -> Tensor:
    """Mean over ranks, without gradient."""
    return reduce_sum(x) / world_size() if world_size() > 1 else x.detach()


def reduce_max(x: Tensor) -> Tensor:
    """Maximum over ranks, element by element, without gradient."""
    return _reduced(x, dist.ReduceOp.MAX)


@torch.no_grad()
def _reduced(x: Tensor, operation: "dist.ReduceOp") -> Tensor:
    x = x.detach()
    if world_size() > 1:
        x = x.clone()
        dist.all_reduce(x, op=operation)
    return x


@torch.no_grad()
def reduce_min(x: Tensor) -> Tensor:
    """Minimum over ranks, element by element, without gradient."""
    return -reduce_max(-x)


def gather_objects(value: Any) -> list[Any]:
    """Small Python values of all ranks, in order of rank, on every rank."""
    gathered = [value] * world_size()
    if len(gathered) > 1:
        dist.all_gather_object(gathered, value)
    return gathered


def reduce_means(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Means over ranks of several scalars, in one exchange."""
    if world_size() == 1 or not values:
        return values
    means = reduce_mean(torch.stack([value.float() for value in values.values()]))
    return dict(zip(values, means.unbind(), strict=True))
