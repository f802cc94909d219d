"""`backend=bminf`: BMInf's int8 weights and layer scheduler, on the GPUs it ships machine code for."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import torch

from alignlab.inference.backend import Availability
from alignlab.inference.backends.transformers import TransformersBackend
from alignlab.inference.native.source import OpenSource

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OLDEST, NEWEST = (6, 1), (8, 9)  # binaries for 6.1 to 8.6 and no PTX: a newer major version cannot run them


class BminfBackend(TransformersBackend):
    """transformers' model wrapped by `bminf.wrapper`.

    Args:
        memory_gib: GPU memory for layers that stay; None takes what is free.
        quantization: int8 weights and activations.
        batch_size: requests that run together.
    """

    name = "bminf"

    def __init__(self, memory_gib: float | None = None, quantization: bool = True, batch_size: int = 32) -> None:
        super().__init__(batch_size, device="cpu")  # BMInf moves what it needs
        self.memory_gib, self.quantization = memory_gib, quantization

    def available(self) -> Availability:
        try:
            own = version("bminf")
        except PackageNotFoundError:
            return Availability(
                False, "the package bminf is not installed (last release 2023); backend=offload has its idea"
            )
        if not torch.cuda.is_available():
            return Availability(False, f"bminf {own} needs a CUDA driver, which is not here")
        capability = torch.cuda.get_device_capability()
        if not OLDEST <= capability <= NEWEST:
            here = ".".join(map(str, capability))
            return Availability(
                False, f"bminf {own} has machine code for compute capability 6.1 to 8.9; here is {here}"
            )
        return Availability(True, f"bminf {own}")

    def fetch(self, opened: OpenSource) -> PreTrainedModel:
        found = self.available()
        if not found.ok:
            raise ValueError(f"backend={self.name}: {found.reason}")
        import bminf

        limit = None if self.memory_gib is None else int(self.memory_gib * 2**30)
        with torch.cuda.device(0):
            return bminf.wrapper(super().fetch(opened).half(), quantization=self.quantization, memory_limit=limit)
