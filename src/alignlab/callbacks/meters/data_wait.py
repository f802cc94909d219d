"""Says once, in one line, that a run waits for its data: how long, which side is slow, what would help."""

import logging
import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from alignlab.callbacks.meters.throughput import num_samples
from alignlab.distributed.machine import cores

log = logging.getLogger(__name__)


class DataWait(Callback):
    """Compares the time that training stood waiting for batches with all of its time but validation, over the first
    `seconds` after three steps.

    Ranks: rank zero alone measures its own loader.

    Args:
        share: of the time from which on it is worth a line.
        seconds: of training that are looked at; a run that ends before is looked at as far as it came, if it took 20
            steps.
        log: `train/data_wait_share` too, the share of the time since the third step, where other metrics are logged.
    """

    def __init__(self, share: float = 0.2, seconds: float = 30.0, log: bool = False) -> None:
        if not 0 < share < 1 or seconds <= 0:
            raise ValueError(f"share={share} lies in (0, 1), seconds={seconds} is positive")
        self.share, self.seconds = share, seconds
        self._logs = log  # not `log`: Lightning sets a callback's to the module's
        self._steps, self._elapsed, self._since = 0, 0.0, 0.0
        self._waited_before, self._samples = 0.0, 0
        self._done = False

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._steps == 3:  # the first steps wait for workers to start
            self._since, self._waited_before = time.perf_counter(), _waited(trainer)
        if self._steps >= 3 and not self._done and self._now() > self.seconds:
            self._judge(trainer)
        self._steps += 1
        self._samples = num_samples(batch)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._logs and self._steps > 3 and (elapsed := self._now()) > 0:
            pl_module.log("train/data_wait_share", (_waited(trainer) - self._waited_before) / elapsed)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._elapsed = self._now()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._since = time.perf_counter()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._steps > 20 and not self._done:
            self._judge(trainer)

    def _now(self) -> float:
        return self._elapsed + time.perf_counter() - self._since if self._steps > 3 else 0.0

    def _judge(self, trainer: lightning.Trainer) -> None:
        self._done = True
        loader, elapsed, steps = trainer.train_dataloader, self._now(), self._steps - 3
        waited = _waited(trainer) - self._waited_before
        if trainer.is_global_zero and hasattr(loader, "seconds_waited") and waited > self.share * elapsed:
            log.warning(line(waited / elapsed, 1000 * elapsed / steps, self._samples, loader.num_workers, cores()))


def line(share: float, step: float, samples: int, workers: int, cores: int) -> str:
    """What is said: `share` of the time waited, milliseconds of a step, samples of a batch."""
    head = f"{share:.0%} of the time goes into waiting for data: steps of {step:.0f} ms would take "
    head += f"{(1 - share) * step:.0f} ms; the loader makes {1000 * samples / step:.3g} samples/s, the net could take "
    head += f"{1000 * samples / ((1 - share) * step):.3g};"
    if workers == 0:
        return f"{head} the training process makes its batches itself, num_workers=1 makes them beside it"
    if workers + 1 < cores:
        more = min(cores - 1, max(workers + 1, round(workers / max(1 - share, 0.05))))
        return f"{head} num_workers={workers} is the slow side, {cores} cores allow num_workers={more}"
    return (
        f"{head} all {cores} cores make batches already: smaller pictures (image_size) or fewer augmentations cost less"
    )


def _waited(trainer: lightning.Trainer) -> float:
    return getattr(trainer.train_dataloader, "seconds_waited", 0.0)
