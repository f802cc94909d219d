"""What a forward pass keeps for the backward pass, counted on a few rows.

Legend: B rows of a batch, T tokens.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


def saved_bytes(forward: Callable[[], Any], known: Iterable[Tensor] = ()) -> int:
    """Bytes of all storages that a forward pass saves for its backward pass, each once.

    Args:
        forward: is run once, with gradients.
        known: tensors that lie there anyway: parameters and buffers.
    """
    there = {_place(tensor) for tensor in known}
    sizes: dict[Any, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if (place := _place(tensor)) not in there:
            sizes[place] = _local(tensor).untyped_storage().nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = forward()  # as long as it lives no storage's place is used again
    total = sum(sizes.values())
    del kept
    return total


def _place(tensor: Tensor) -> tuple[str, int]:
    local = _local(tensor)
    storage = local.untyped_storage()
    # imagined storages lie nowhere, but are the same for all views of one
    return str(local.device), storage._cdata if isinstance(local, FakeTensor) else storage.data_ptr()


def _local(tensor: Tensor) -> Tensor:
    return getattr(tensor, "_local_tensor", tensor)
