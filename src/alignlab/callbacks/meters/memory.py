"""Memory of training, per rank: what lies there between steps, and the most there was."""

import gc
import sys
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch._subclasses.fake_tensor import FakeTensor

from alignlab.cost.measured import peak_memory_bytes


class MemoryMeter(Callback):
    """Logs `memory/tensor_bytes` and `memory/peak_bytes`, of the rank that has most.

    Ranks: all of them compare their numbers, once.

    tensor_bytes: all tensors after step `at_step`, gradients still there: what `alignlab.cost.memory.training_memory`
    adds up. peak_bytes: the most that was allocated so far on a GPU; on a CPU the growth of the process's highest
    resident size since before the net was built.
    """

    def __init__(self, at_step: int = 3) -> None:
        self.at_step = at_step
        self._before = 0

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._before = 0 if torch.cuda.is_available() else _resident_bytes()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.at_step:
            values = {"tensor_bytes": tensor_bytes(), "peak_bytes": peak_memory_bytes() - self._before}
            for name, value in values.items():
                pl_module.log(f"memory/{name}", float(value), reduce_fx="max", sync_dist=True)


def tensor_bytes() -> int:
    """Bytes of all storages that a tensor of this process refers to, each counted once."""
    storages: dict[tuple[str, int], int] = {}
    for thing in gc.get_objects():
        if not issubclass(type(thing), torch.Tensor) or isinstance(thing, FakeTensor):  # a compiler's stand-in
            continue
        candidates = [thing, thing.grad] if thing.is_leaf and thing.requires_grad else [thing]
        for tensor in candidates:
            local = getattr(tensor, "_local_tensor", tensor)  # of a DTensor
            if local is not None and local.layout == torch.strided and local.device.type != "meta":
                storage = local.untyped_storage()
                storages[str(local.device), storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _resident_bytes() -> int:
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024
    return peak_memory_bytes()
