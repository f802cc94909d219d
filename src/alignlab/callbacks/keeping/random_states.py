"""Random states of a process, as plain values that a checkpoint can hold: torch, CUDA, NumPy and Python."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

States = dict[str, Any]


def capture(device: torch.device | None = None) -> States:
    """The states of this process, and of `device` if that is a GPU; no tensor is on a GPU, nothing waits for one."""
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    states = {
        "torch": torch.get_rng_state(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)),
        "python": random.getstate(),
    }
    if device is not None and device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore(states: States, device: torch.device | None = None) -> None:
    """Puts back what `capture` gave."""
    torch.set_rng_state(states["torch"].cpu())
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    if "cuda" in states and device is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)


@contextmanager
def preserved(device: torch.device | None = None) -> Iterator[None]:
    """Whatever is drawn inside, the states are as before afterwards."""
    states = capture(device)
    try:
        yield
    finally:
        restore(states, device)
