"""The learning rate as metric `lr`."""

from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback


class LearningRate(Callback):
    """Logs `lr` at logging steps: the largest rate among the optimizers' parameter groups (they differ by layer decay)."""

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        rates = [float(group["lr"]) for optimizer in trainer.optimizers for group in optimizer.param_groups]
        if rates:
            pl_module.log("lr", max(rates))
