"""`backend=tensor_parallel_package`: the package of that name, where its versions allow it (transformers up to 4.49)."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import torch

from alignlab.inference.backend import Availability
from alignlab.inference.backends.transformers import TransformersBackend
from alignlab.inference.native.source import OpenSource

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NEWEST_TRANSFORMERS = (
    4,
    49,
)  # from 4.50 on a model has no `generate` by itself, and the package's wrapper relies on it


class TensorParallelPackageBackend(TransformersBackend):
    """transformers' model wrapped by `tensor_parallel.tensor_parallel`.

    Args:
        devices: what the matrices are split over.
        batch_size: requests that run together.
    """

    name = "tensor_parallel_package"

    def __init__(self, devices: tuple[str, ...] = ("cpu", "cpu"), batch_size: int = 32) -> None:
        super().__init__(batch_size, device="cpu")  # the package moves what it needs
        self.devices = tuple(devices)

    def available(self) -> Availability:
        try:
            own = version("tensor_parallel")
        except PackageNotFoundError:
            return Availability(False, "the package tensor_parallel is not installed (last release 2023)")
        transformers = version("transformers")
        if tuple(map(int, transformers.split(".")[:2])) > NEWEST_TRANSFORMERS:
            limit = ".".join(map(str, NEWEST_TRANSFORMERS))
            return Availability(
                False, f"tensor_parallel {own} works with transformers up to {limit}; here is {transformers}"
            )
        missing = [device for device in self.devices if device.startswith("cuda") and not torch.cuda.is_available()]
        if missing:
            return Availability(False, f"backend.devices={list(self.devices)} needs CUDA, which is not here")
        return Availability(True, f"tensor_parallel {own} with transformers {transformers}")

    def fetch(self, opened: OpenSource) -> PreTrainedModel:
        found = self.available()
        if not found.ok:
            raise ValueError(f"backend={self.name}: {found.reason}")
        import tensor_parallel

        return tensor_parallel.tensor_parallel(super().fetch(opened), list(self.devices))
