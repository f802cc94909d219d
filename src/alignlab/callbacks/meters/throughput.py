"""Samples per second of training, over all ranks, without the time spent in validation."""

import time
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback


class Throughput(Callback):
    """Logs `train/samples_per_second`, over the steps since the last time; `samples_per_second` is that of the whole
    run.

    Ranks: each for itself, no exchange.

    The clock runs from the end of the `warmup_steps`-th step (compilation, first touch of memory) and stands still
    from the beginning of a validation until the next step begins; checkpoints between steps count.
    The device is waited for only where Lightning waits anyway: at logging steps, before validation and at the end.
    """

    def __init__(self, warmup_steps: int = 3) -> None:
        self.warmup_steps = warmup_steps
        self.samples = 0
        self.seconds = 0.0
        self._steps = 0
        self._started: float | None = None
        self._logged = (0, 0.0)  # samples, seconds

    @property
    def samples_per_second(self) -> float | None:
        """Over the run so far; None before anything was measured."""
        return self.samples / self.seconds if self.seconds else None

    def state_dict(self) -> dict[str, float]:
        """Samples and seconds so far, for a resumed run to go on with."""
        running = 0.0 if self._started is None else time.perf_counter() - self._started
        return {"samples": self.samples, "seconds": self.seconds + running}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Goes on with what was measured before."""
        self.samples, self.seconds = state_dict["samples"], state_dict["seconds"]
        self._logged = (self.samples, self.seconds)

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._started is None and self._steps >= self.warmup_steps:
            self._start(pl_module)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._steps += 1
        if self._steps <= self.warmup_steps:
            return
        self.samples += num_samples(batch) * trainer.world_size
        logged = trainer.fit_loop.epoch_loop._batches_that_stepped + 1  # the step that loggers will see
        done = not trainer.fit_loop._should_accumulate()
        if done and trainer.log_every_n_steps and logged % trainer.log_every_n_steps == 0:
            self._pause(pl_module)
            samples, seconds = self.samples - self._logged[0], self.seconds - self._logged[1]
            pl_module.log("train/samples_per_second", samples / max(seconds, 1e-9))
            self._logged = (self.samples, self.seconds)
            self._start(pl_module)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._pause(pl_module)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._pause(pl_module)

    def on_exception(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: Any) -> None:
        self._pause(pl_module)

    def _start(self, pl_module: lightning.LightningModule) -> None:
        _wait(pl_module.device)
        self._started = time.perf_counter()

    def _pause(self, pl_module: lightning.LightningModule) -> None:
        if self._started is not None:
            _wait(pl_module.device)
            self.seconds += time.perf_counter() - self._started
            self._started = None


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def num_samples(batch: Any) -> int:
    """Rows of the first tensor in a batch (a tensor, a sequence or a mapping of them)."""
    while not isinstance(batch, torch.Tensor):
        batch = next(iter(batch.values())) if isinstance(batch, dict) else batch[0]
    return len(batch)
