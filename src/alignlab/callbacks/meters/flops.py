"""FLOPs of a sample and the share of the device's peak that training reaches (MFU)."""

from contextlib import ExitStack
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from alignlab.callbacks.meters.throughput import Throughput, num_samples
from alignlab.cost.flops import ModelFlops, peak_flops


class Flops(Callback):
    """Counts the FLOPs of the first training step and logs `train/gflops_per_sample`, then `train/mfu` with
    `train/samples_per_second`.

    Ranks: each for itself, no exchange.

    MFU = samples/s a device * FLOPs a sample / peak (arXiv:2204.02311, app. B). FLOPs are the model's: what gradient
    checkpointing or micro-batches compute once more isn't counted. peak: FLOP/s of one device; None takes a known
    GPU's data sheet, and measures a matrix product in the run's precision elsewhere. Blocks under `compile` are
    counted too: that first step runs them eagerly. Raises ValueError without the throughput callback.
    """

    def __init__(self, peak: float | None = None) -> None:
        self.peak = peak
        self.flops_per_sample: float | None = None
        self._counter: ModelFlops | None = None
        self._stack = ExitStack()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not any(isinstance(callback, Throughput) for callback in trainer.callbacks):
            raise ValueError("flops needs the callback throughput, which knows samples per second")
        if self.peak is None:
            dtype = torch.bfloat16 if "bf16" in str(trainer.precision) else torch.float32
            self.peak = peak_flops(pl_module.device, dtype)

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.flops_per_sample is None:
            self._stack.enter_context(torch.compiler.set_stance("force_eager"))
            self._counter = self._stack.enter_context(ModelFlops())

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._counter is not None:
            self._stack.close()
            self.flops_per_sample = self._counter.get_total_flops() / num_samples(batch)
            self._counter = None
            pl_module.log("train/gflops_per_sample", self.flops_per_sample / 1e9)
        rate = trainer.callback_metrics.get("train/samples_per_second")
        if rate is not None and self.flops_per_sample and self._due(trainer):
            pl_module.log("train/mfu", float(rate) / trainer.world_size * self.flops_per_sample / self.peak)

    def on_exception(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: Any) -> None:
        self._stack.close()

    @staticmethod
    def _due(trainer: lightning.Trainer) -> bool:
        return bool(trainer.log_every_n_steps) and trainer.global_step % trainer.log_every_n_steps == 0
