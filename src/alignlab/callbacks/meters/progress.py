"""How far a training is: a line at the bottom of a terminal; elsewhere a line at an interval."""

import sys
import threading
import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, ProgressBar

from alignlab.callbacks.keeping.host_copies import floats
from alignlab.callbacks.telling.pace import Pace, last_step, said_rate, said_time
from alignlab.callbacks.telling.status_line import StatusLine

FIRST = 5.0  # seconds to the first line
REDRAWN = 0.5  # seconds between two looks at the numbers where a terminal shows them
BAR = 20  # letters


def progress(every_seconds: float = 30.0, every_n_steps: int | None = None) -> Callback:
    """`Progress`, in a terminal as one line at its bottom.

    Raises:
        ValueError: a number that isn't positive.
    """
    if every_seconds <= 0 or (every_n_steps is not None and every_n_steps < 1):
        raise ValueError(f"every_seconds={every_seconds} and every_n_steps={every_n_steps} must be positive")
    return Progress(every_seconds, every_n_steps, StatusLine() if sys.stdout.isatty() else None)


class Progress(ProgressBar):
    """Steps done of all, time left, rate and the method's own numbers (`Method.shown`).

    Ranks: rank zero alone prints.

    In a terminal the line is drawn twice a second. Elsewhere, in pipes, files and notebooks, a line is printed after 5
    seconds, then one every `every_seconds`, also while a step or a validation takes longer, and one after each
    validation and at the end. The device is asked for the numbers when they are shown.

    Args:
        every_seconds: from one printed line to the next.
        every_n_steps: lines besides these.
        line: of the terminal; None prints lines.
    """

    def __init__(
        self, every_seconds: float = 30.0, every_n_steps: int | None = None, line: StatusLine | None = None
    ) -> None:
        super().__init__()
        self.every_seconds, self.every_n_steps, self.line = every_seconds, every_n_steps, line
        self.pace = Pace()
        self._enabled, self._ended = True, threading.Event()
        self._numbers, self._phase = "", ""
        self._phase_since = self._due = self._looked = 0.0

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not self._enabled:
            return
        self.pace.begin(trainer.global_step, last_step(trainer))
        self._due = time.perf_counter() + min(FIRST, self.every_seconds)
        self._numbers = ""
        self._enter("")
        if self.line is not None:
            self.line.start()
        self._ended = threading.Event()
        threading.Thread(target=self._tick, args=(self._ended,), name="progress", daemon=True).start()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if not self._enabled or step == self.pace.step:
            return
        self.pace.done(step)
        self._enter("")
        now = time.perf_counter()
        if self.line is not None:
            if now - self._looked >= REDRAWN or step == self.pace.total:
                self._look(trainer, pl_module)
                self.line.show(self.text())
        elif now >= self._due or step == self.pace.total or (self.every_n_steps and step % self.every_n_steps == 0):
            self._look(trainer, pl_module)
            self._print()
        elif now - self._looked >= self.every_seconds / 4:  # the next line may be the other thread's
            self._look(trainer, pl_module)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.pace.pause()
        self._enter("validating")

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        batches = trainer.num_val_batches[dataloader_idx] if trainer.num_val_batches else 0
        self._phase = f"validating {batch_idx + 1}/{batches}"

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.pace.go_on()
        self._enter("")
        if self._enabled and not trainer.sanity_checking:
            values = floats({k: v for k, v in trainer.callback_metrics.items() if k.startswith("val/")})
            self._look(trainer, pl_module)
            print(f"step {trainer.global_step} validation  {_said(values)}", flush=True)
            self._due = time.perf_counter() + self.every_seconds

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._enter("last evaluations and files")

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self._stop()

    def on_exception(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: Any) -> None:
        self._stop()

    def text(self) -> str:
        """The line as it stands."""
        pace, parts = self.pace, []
        if pace.total is None:
            parts.append(f"step {pace.step}")
        else:
            share = pace.step / max(pace.total, 1)
            bar = f"  {'━' * round(BAR * share)}{'╌' * (BAR - round(BAR * share))}" if self.line is not None else ""
            parts.append(f"step {pace.step}/{pace.total}{bar}  {100 * share:.0f} %")
        if pace.left is not None and pace.step < (pace.total or 0):
            parts.append(f"{said_time(pace.left)} left")
        if pace.rate is not None:
            parts.append(said_rate(pace.rate))
        seconds = time.perf_counter() - self._phase_since
        if self._phase:
            parts.append(f"{self._phase} for {said_time(seconds)}")
        elif pace.step < (pace.total or pace.step + 1) and seconds > max(5.0, 5 / (pace.rate or 1.0)):
            parts.append(f"step {pace.step + 1} for {said_time(seconds)}")
        return "  ".join([*parts, self._numbers] if self._numbers else parts)

    def _tick(self, ended: threading.Event) -> None:
        """Keeps the line alive, from its own thread, while nothing comes to an end."""
        while not ended.wait(1.0 if self.line is not None else min(0.5, self.every_seconds / 2)):
            if self.line is not None:
                self.line.show(self.text())
            elif time.perf_counter() >= self._due + min(
                1.0, self.every_seconds / 2
            ):  # the main thread hasn't come to it
                self._print()

    def _print(self) -> None:
        self._due = time.perf_counter() + self.every_seconds
        print(self.text(), flush=True)

    def _look(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Fetches the numbers: one copy from the device."""
        known = trainer.callback_metrics
        names = getattr(pl_module, "shown", ("train/loss", "val/loss"))
        self._numbers = _said(floats({name: known[name] for name in names if name in known}))
        self._looked = time.perf_counter()

    def _enter(self, phase: str) -> None:
        self._phase, self._phase_since = phase, time.perf_counter()

    def _stop(self) -> None:
        if not self._ended.is_set():
            self._ended.set()
            if self.line is not None:
                self._phase = ""
                self.line.stop()


def _said(values: dict[str, float]) -> str:
    return "  ".join(f"{name.removeprefix('train/')} {value:.4g}" for name, value in values.items())
