"""A callback of one's own: Lightning's, made by the config."""

import json
from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class BestLoss(Callback):
    """Keeps the lowest validation loss and its step in `best_loss.json` of the run directory.

    Args:
        metric: any name that metrics.csv has.
    """

    def __init__(self, metric: str = "val/loss") -> None:
        self.metric = metric
        self.best: tuple[float, int] | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        value = trainer.callback_metrics.get(self.metric)
        if value is None or trainer.sanity_checking or (self.best is not None and self.best[0] <= float(value)):
            return
        self.best = (float(value), trainer.global_step)
        if trainer.is_global_zero:
            file = Path(trainer.default_root_dir) / "best_loss.json"
            file.write_text(json.dumps({"metric": self.metric, "value": self.best[0], "step": self.best[1]}))
