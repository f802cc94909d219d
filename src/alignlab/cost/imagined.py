"""Nets that have shapes and types and no numbers: what a step keeps can be counted without memory for any of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from alignlab.models import attention


@contextmanager
def imagined(build: Callable[[], nn.Module], *, gpu: bool) -> Iterator[nn.Module]:
    """Builds a net on the meta device; within, its tensors and all that are made pretend to lie on the CPU.

    Args:
        gpu: whether attention takes the way that it takes on a GPU.
    """
    with torch.device("meta"):
        module = build()
    attention.as_on_a_gpu, before = gpu, attention.as_on_a_gpu
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), _WithoutGenerators():
            yield module.to_empty(device="cpu")
    finally:
        attention.as_on_a_gpu = before


class _WithoutGenerators(TorchFunctionMode):
    """Random numbers that don't exist need no generator, which imagined ones refuse."""

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = {name: value for name, value in (kwargs or {}).items() if name != "generator"}
        return function(*args, **kwargs)
