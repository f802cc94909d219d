"""Checkpoints of a run directory: when they are written, what is in them, and the config."""

import math
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.utilities import rank_zero_warn

from alignlab.callbacks.keeping.checkpoint_folder import CheckpointFolder, Mode
from alignlab.callbacks.keeping.host_copies import floats, host_copies
from alignlab.callbacks.keeping.position import Moment, take_down, within_step, write_down
from alignlab.callbacks.keeping.seeding import SeedPerRank
from alignlab.files.weights import read_file
from alignlab.files.writing import replaced

FIRST_STEP = 10  # of the first checkpoint, which shows what one costs


class Checkpoints(Checkpoint):
    """Saves between steps: so often that it takes `share` of the time, and whenever a validation is among the best.

    Ranks: all of them save together, where the strategy gathers; rank zero names, rotates, and decides when.

    The newest is `last.ckpt`, the best `best.ckpt`; see `CheckpointFolder`. After a checkpoint that took c seconds,
    with steps of s seconds, the next is due in ceil(c / (share s)) steps: rank zero measures, all ranks hear its
    answer with the checkpoint and none asks in between. A run stopped by an exception that is a request (Ctrl-C,
    SIGTERM) saves too, if it stopped between two steps and on one process.

    Args:
        monitor, mode: metric that decides which is best, and whether a small or a large value is good; None: none is.
        keep_last, keep_best: how many of the newest and of the best stay; keep_best=-1: every one that was validated.
        every_n_steps: a fixed interval in optimizer steps instead of the measured one.
        share: of the training time that checkpoints at the measured interval may take.
    """

    def __init__(
        self,
        monitor: str | None = None,
        mode: Mode = "min",
        keep_last: int = 2,
        keep_best: int = 1,
        every_n_steps: int | None = None,
        share: float = 0.01,
    ) -> None:
        if keep_last < 1 or keep_best < -1:
            raise ValueError(f"keep_last={keep_last} must be at least 1, keep_best={keep_best} at least -1")
        if not 0 < share <= 1 or (every_n_steps is not None and every_n_steps < 1):
            raise ValueError(f"share={share} lies in (0, 1], every_n_steps={every_n_steps} is at least 1")
        self.monitor, self.mode = monitor, mode
        self._keep = {"keep_last": keep_last, "keep_best": keep_best}
        self.every_n_steps, self.share = every_n_steps, share
        self.folder: CheckpointFolder | None = None
        self.metrics_before: dict[str, float] = {}  # of the run that is resumed, as far as it came
        self.seconds: list[float] = []  # that each checkpoint took
        self._due: Moment | None = None
        self._validated: dict[str, float] = {}  # metrics of a validation at the present step
        self._next_step = every_n_steps or FIRST_STEP
        self._saved_step = -1
        self._stepped: int | None = None
        self._clock = _Clock()

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        path = Path(trainer.default_root_dir) / "checkpoints"
        self.folder = CheckpointFolder(path, **self._keep, monitor=self.monitor, mode=self.mode)
        with suppress(NotImplementedError):  # sharding strategies write by themselves
            if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
                trainer.strategy.checkpoint_io = StreamedIO()

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.metrics_before = checkpoint.get("metrics", {})
        if "random" in checkpoint:  # written by this class: the loggers' step is exact
            self._stepped = checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"]
            for logger in trainer.loggers:  # rows of steps that will be done again
                getattr(logger, "forget_after", lambda _: None)(self._stepped)
        self._saved_step = checkpoint["global_step"]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.is_global_zero:
            self.folder.forget_after(trainer.global_step)
        self._next_step = self._after(trainer.global_step, self.every_n_steps or FIRST_STEP)
        self._clock.start(trainer.global_step)

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._stepped is not None:  # Lightning counts one more if the checkpoint lies where a validation does
            trainer.fit_loop.epoch_loop._batches_that_stepped, self._stepped = self._stepped, None
        if self._due is not None:
            self.save(trainer)
        self._validated = {}

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step >= self._next_step and not trainer.fit_loop._should_accumulate():
            self.request(trainer)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._clock.pause()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._clock.go_on()
        if trainer.sanity_checking:
            return
        self._validated = _floats(trainer, prefix="val/")
        # Accumulated gradients aren't saved, so a validation amid them has no checkpoint of its own.
        if not trainer.fit_loop._should_accumulate() and (self._due is not None or self._is_good(trainer)):
            self.request(trainer)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._validated |= _floats(trainer, prefix="val/") if self._validated else {}
        self.request(trainer)
        self.save(trainer)
        looked_for = self.monitor is not None and trainer.enable_validation and trainer.is_global_zero
        if looked_for and not (self.folder.path / "best.ckpt").exists():
            logged = ", ".join(sorted(trainer.callback_metrics))
            rank_zero_warn(f"no best.ckpt: monitor={self.monitor} was never logged ({logged})")

    def on_exception(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: Any) -> None:
        asked = isinstance(exception, KeyboardInterrupt | SystemExit)
        if asked and trainer.world_size == 1 and self.folder is not None and not within_step(trainer):
            self.request(trainer)
            self.save(trainer)

    def request(self, trainer: lightning.Trainer) -> None:
        """Has a checkpoint of this moment written before the next step; to be called on all ranks, at the end of a
        step.
        """
        self._due = take_down(trainer)

    def save(self, trainer: lightning.Trainer) -> None:
        """Writes the checkpoint that was requested, on all ranks together, unless this step has one."""
        step = trainer.global_step
        if self._due is not None and step not in (0, self._saved_step):
            begin = time.perf_counter()
            for logger in trainer.loggers:
                logger.save()  # rows on disk are never behind the checkpoint
                getattr(logger, "flush", lambda: None)()
            self.folder.begin(step) if trainer.is_global_zero else None
            trainer.save_checkpoint(self.folder.path / f".step-{step:08d}.ckpt.tmp")
            if trainer.is_global_zero:
                self.folder.finish(step, self._validated)
            self.seconds.append(time.perf_counter() - begin)
            self._saved_step = step
            self._next_step = trainer.strategy.broadcast(self._after(step, self._interval(step)))
            self._clock.start(step)
        self._due = None

    def went_back(self, trainer: lightning.Trainer) -> None:
        """To be told when the run has returned to an earlier step: what was saved of later ones is replaced."""
        self._saved_step, self._validated = -1, {}
        self.request(trainer)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        seed = next((callback.seed for callback in trainer.callbacks if isinstance(callback, SeedPerRank)), None)
        write_down(trainer, self._due or take_down(trainer), checkpoint, seed)
        checkpoint["metrics"] = self.metrics_so_far(trainer)
        checkpoint["validated"] = dict(self._validated)  # what index.json says of it, should that be lost

    def metrics_so_far(self, trainer: lightning.Trainer) -> dict[str, float]:
        """The latest value of everything that was logged, in this process or before the run was resumed."""
        return self.metrics_before | _floats(trainer)

    def _is_good(self, trainer: lightning.Trainer) -> bool:
        return trainer.strategy.broadcast(trainer.is_global_zero and self.folder.wanted(self._validated))

    def _after(self, step: int, interval: int) -> int:
        """The next step at which a checkpoint is due; fixed intervals count from the run's beginning."""
        return (step // interval + 1) * interval if self.every_n_steps else step + interval

    def _interval(self, step: int) -> int:
        if self.every_n_steps:
            return self.every_n_steps
        step_seconds = self._clock.seconds() / max(1, step - self._clock.step)
        return max(1, math.ceil(self.seconds[-1] / (self.share * max(step_seconds, 1e-9))))


class ConfigInCheckpoint(Callback):
    """Puts the resolved config into every checkpoint under `config`, so that one file says what it is.

    Ranks: each for itself, no exchange.
    """

    def __init__(self, config: dict) -> None:
        self.config = config

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["config"] = self.config


class StreamedIO(TorchCheckpointIO):
    """Writes straight into the file, under a temporary name until it is complete and on disk.

    Tensors of a GPU are copied together and waited for once.
    Lightning's own way builds the file in memory first and may copy it from another file system, which takes twice the
    memory and isn't atomic.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        with replaced(Path(path), durable=True) as temporary:
            torch.save(host_copies(checkpoint), temporary)

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """As every door reads one: nothing in it is run, and what is wrong is said in one line with the file's name."""
        return read_file(Path(path), "checkpoint")


class _Clock:
    """Seconds since a step, without validations."""

    def __init__(self) -> None:
        self.start(0)

    def start(self, step: int) -> None:
        self.step, self._begin, self._pause = step, time.perf_counter(), 0.0

    def pause(self) -> None:
        self._pause -= time.perf_counter()

    def go_on(self) -> None:
        self._pause += time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._begin - self._pause


def _floats(trainer: lightning.Trainer, prefix: str = "") -> dict[str, float]:
    return floats({name: value for name, value in trainer.callback_metrics.items() if name.startswith(prefix)})
