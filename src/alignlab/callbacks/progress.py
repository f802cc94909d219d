"""A rich progress bar in a terminal; elsewhere a line now and then."""

import sys
import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, ProgressBar, RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme


def progress(every_n_steps: int = 50) -> Callback:
    """The rich bar where standard output is a terminal, else `LineProgress(every_n_steps)`."""
    if not sys.stdout.isatty():
        return LineProgress(every_n_steps)
    return RichProgressBar(refresh_rate=10, theme=RichProgressBarTheme(metrics_format=".3f"))


class LineProgress(ProgressBar):
    """Prints step, speed and the progress-bar metrics every N steps and after each validation, on rank zero only.

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
            values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
            print(f"step {trainer.global_step} validation  " + _text(values), flush=True)
            self._since = (trainer.global_step, time.perf_counter())

    def _print(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, head: str) -> None:
        values = {k: v for k, v in self.get_metrics(trainer, pl_module).items() if k != "v_num"}
        print(f"{head}  {_text(values)}", flush=True)


def _limit(trainer: lightning.Trainer) -> str:
    return str(trainer.max_steps) if trainer.max_steps > 0 else "?"


def _text(values: dict[str, Any]) -> str:
    return "  ".join(f"{name} {float(value):.4g}" for name, value in values.items() if not isinstance(value, str))
