"""Checkpoints of a run directory: checkpoints/last.ckpt and checkpoints/best.ckpt, with the resolved config inside."""

from pathlib import Path
from typing import Any, Literal

import lightning
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn


class BestAndLast(ModelCheckpoint):
    """Saves after each validation and at the end: `last.ckpt`, and `best.ckpt` by the monitored metric.

    A run that is stopped by a signal has `last.ckpt` saved by `Interruption`.

    Args:
        monitor: metric that decides which is best; None keeps `last.ckpt` only.
        mode: whether a small or a large value is good.
    """

    def __init__(self, monitor: str | None = None, mode: Literal["min", "max"] = "min") -> None:
        super().__init__(
            filename="best",
            monitor=monitor,
            mode=mode,
            save_last=False,  # done here, also where the monitored metric is missing
            save_top_k=1 if monitor else 0,
            save_on_train_epoch_end=False,
            enable_version_counter=False,  # best.ckpt is replaced, not joined by best-v1.ckpt
        )
        self._last_saved_step = -1

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self.dirpath = str(Path(trainer.default_root_dir) / "checkpoints")
        super().setup(trainer, pl_module, stage)

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Loggers' step: Lightning restores it one short if the checkpoint was saved by a validation off the interval.
        if trainer.ckpt_path is not None and pl_module.automatic_optimization:
            trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if self.monitor is not None and self.monitor in trainer.callback_metrics:
            super().on_validation_end(trainer, pl_module)
        self._save_last(trainer)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._save_last(trainer)
        if self.monitor is not None and not self.best_model_path:
            logged = ", ".join(sorted(trainer.callback_metrics))
            rank_zero_warn(f"no best.ckpt: callbacks.checkpoint.monitor={self.monitor} was never logged ({logged})")

    def _save_last(self, trainer: lightning.Trainer) -> None:
        if trainer.global_step not in (0, self._last_saved_step):
            trainer.save_checkpoint(Path(self.dirpath) / "last.ckpt")
            self._last_saved_step = trainer.global_step


class ConfigInCheckpoint(Callback):
    """Puts the resolved config into every checkpoint under `config`, so that one file says what it is."""

    def __init__(self, config: dict) -> None:
        self.config = config

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["config"] = self.config
