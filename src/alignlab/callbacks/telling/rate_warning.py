"""Says in one line that a learning rate is far beyond what nets of this size and start are trained with."""

import logging

import lightning
from lightning.pytorch.callbacks import Callback

from alignlab.optim import rates

log = logging.getLogger(__name__)


class RateWarning(Callback):
    """Looks at the optimizers' peak rates when training starts.

    Ranks: rank zero alone.

    Args:
        start: what the net started from.
    """

    def __init__(self, start: rates.Start) -> None:
        self.start = start

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        if trainer.is_global_zero and groups:
            peak = max(float(group.get("initial_lr", group["lr"])) for group in groups)
            if line := rates.warning(peak, self.start, sum(p.numel() for p in pl_module.net.parameters())):
                log.warning(line)
