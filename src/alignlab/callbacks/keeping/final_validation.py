"""Validation at the very end of training, whatever the interval."""

from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback


class FinalValidation(Callback):
    """Makes the last step end with a validation, also when `trainer.val_check_interval` doesn't divide
    `trainer.max_steps`.

    Ranks: each for itself, no exchange; all come to the same answer.
    """

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if 0 < trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True  # Lightning validates before it stops
