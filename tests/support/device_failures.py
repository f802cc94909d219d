"""Runs that end badly on the pretend device, as functions that a job calls."""

import json
from pathlib import Path

from alignlab.systems.method_system import MethodSystem
from pretend_cuda import training

import torch


def out_of_memory(folder: Path, overrides: list[str]) -> dict:
    """What result.json says of a run whose fifth step finds no memory."""
    step = MethodSystem.training_step

    def too_large(self: MethodSystem, batch: object, batch_index: int) -> torch.Tensor:
        if self.global_step == 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return step(self, batch, batch_index)

    MethodSystem.training_step = too_large
    try:
        training.train(folder, overrides)
    except torch.OutOfMemoryError:
        pass
    finally:
        MethodSystem.training_step = step
    return json.loads((folder / "result.json").read_text())
