"""Where models go by default, and copies between host and device that nobody waits for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def default_device() -> str:
    """The GPU if there is one: all backends choose alike, so that a benchmark compares like with like."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A host tensor on the device; the host goes on at once."""
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def fetched(tensor: Tensor, streams: bool) -> Callable[[], list]:
    """Starts a tensor's way to the host; the function that comes back waits for its end and gives Python's numbers.

    Args:
        streams: whether the device works behind the host; without, the copy is made at once.
    """
    if not streams:
        return tensor.cpu().clone().tolist
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(tensor.device))

    def numbers() -> list:
        arrived.synchronize()
        return host.tolist()

    return numbers
