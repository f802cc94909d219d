"""A rich progress bar in a terminal; elsewhere a line now and then."""

import sys
import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, ProgressBar, RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme
from torch import Tensor

from alignlab.callbacks.keeping.host_copies import floats

SHOWN = ("train/loss", "train/accuracy", "objective/score", "val/loss", "val/score")


def progress(every_n_steps: int = 50) -> Callback:
    """The rich bar where standard output is a terminal, else `LineProgress(every_n_steps)`."""
    if not sys.stdout.isatty():
        return LineProgress(every_n_steps)
    return RichBar(refresh_rate=10, theme=RichProgressBarTheme(metrics_format=".3f"))


class RichBar(RichProgressBar):
    """Lightning's bar, with `shown` metrics: fetched every `refresh_rate` batches, after validations and epochs.

    Ranks: rank zero alone prints.
    """

    _drawn = True

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._drawn = (batch_idx + 1) % self.refresh_rate == 0
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._drawn = True

    def get_metrics(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        return super().get_metrics(trainer, pl_module) | floats(shown(trainer))

    def _update_metrics(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._drawn:
            super()._update_metrics(trainer, pl_module)


class LineProgress(ProgressBar):
    """Prints step, speed and `shown` metrics every N steps and after each validation.

    Ranks: rank zero alone prints.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        super().__init__()
        self.every_n_steps = every_n_steps
        self._enabled = True
        self._since = (0, 0.0)

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._since = (trainer.global_step, time.perf_counter())

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if self._enabled and (step % self.every_n_steps == 0 or step == trainer.max_steps) and step > self._since[0]:
            now = time.perf_counter()
            rate = (step - self._since[0]) / (now - self._since[1])
            self._since = (step, now)
            self._print(trainer, pl_module, f"step {step}/{_limit(trainer)}  {rate:.2f} steps/s")

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._enabled and not trainer.sanity_checking:
            values = floats({k: v for k, v in trainer.callback_metrics.items() if k.startswith("val/")})
            print(f"step {trainer.global_step} validation  " + _text(values), flush=True)
            self._since = (trainer.global_step, time.perf_counter())

    def _print(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, head: str) -> None:
        values = {k: v for k, v in self.get_metrics(trainer, pl_module).items() if k != "v_num"}
        print(f"{head}  {_text(values | floats(shown(trainer)))}", flush=True)


def shown(trainer: lightning.Trainer) -> dict[str, Tensor]:
    """What people watch, of all that was logged: still on the device. Lightning's own `prog_bar=True` would fetch it
    at every step.
    """
    return {name: value for name, value in trainer.callback_metrics.items() if name in SHOWN}


def _limit(trainer: lightning.Trainer) -> str:
    return str(trainer.max_steps) if trainer.max_steps > 0 else "?"


def _text(values: dict[str, Any]) -> str:
    return "  ".join(f"{name} {float(value):.4g}" for name, value in values.items() if not isinstance(value, str))
