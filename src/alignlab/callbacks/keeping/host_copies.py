"""Copies of a device's tensors in host memory: all are asked for, and waited for once."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

AHEAD_BYTES = 4 * 2**30  # of pinned memory, which is never given back: what is larger is copied tensor by tensor


def host_copies(tree: Any, *, fresh: bool = False) -> Any:
    """A tree of dicts, lists and tuples with tensors of a CUDA device replaced by copies in pinned memory, the host
    waiting once.

    Views of the same memory stay views of the same copy where they are equal, as tied weights are. fresh: tensors of
    the host are copied too, and other values (`copy.deepcopy`); else they are handed on. Sharded tensors are handed
    on, or cloned where they are.
    """
    copied: dict[tuple, Tensor] = {}
    blocking = _cuda_bytes(tree) > AHEAD_BYTES

    def one(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return copy.deepcopy(x) if fresh else x
        if hasattr(x, "to_local"):
            return x.detach().clone() if fresh else x
        if x.device.type != "cuda":
            return x.detach().clone() if fresh else x
        key = _place(x)
        if key not in copied:
            copied[key] = x.detach().to("cpu", non_blocking=not blocking)
        return copied[key]

    copies = _mapped(tree, one)
    if copied and not blocking:
        torch.cuda.synchronize()  # the copies are only valid from here on
    return copies


def floats(metrics: dict[str, Tensor]) -> dict[str, float]:
    """Scalars of any device as numbers, in one copy and one wait."""
    if not metrics:
        return {}
    device = max((value.device for value in metrics.values()), key=lambda device: device.type != "cpu")
    exact = torch.float32 if device.type == "mps" else torch.float64
    values = [value.detach().reshape(()).to(device, exact, non_blocking=True) for value in metrics.values()]
    return dict(zip(metrics, torch.stack(values).tolist(), strict=True))


def _mapped(tree: Any, function: Callable[[Any], Any]) -> Any:
    """The tree with the same containers, their attributes (`_metadata` of a state dict) included."""
    if isinstance(tree, dict):
        new = copy.copy(tree)
        for key, value in tree.items():
            new[key] = _mapped(value, function)
        return new
    if type(tree) in (list, tuple):
        return type(tree)(_mapped(value, function) for value in tree)
    return function(tree)


def _place(x: Tensor) -> tuple:
    return x.untyped_storage().data_ptr(), x.storage_offset(), x.dtype, tuple(x.shape), x.stride()


def _cuda_bytes(tree: Any) -> int:
    sizes: dict[tuple, int] = {}

    def count(x: Any) -> Any:
        if isinstance(x, Tensor) and x.device.type == "cuda" and not hasattr(x, "to_local"):
            sizes[_place(x)] = x.nbytes
        return x

    _mapped(tree, count)
    return sum(sizes.values())
