"""The learning rate as metric `lr`, and the parameter groups in the log."""

import logging
from collections.abc import Iterable
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

log = logging.getLogger(__name__)


class LearningRate(Callback):
    """Logs `lr` at logging steps and the last: the largest rate among the optimizers' parameter groups (they differ by
    layer decay).

    Ranks: each for itself, no exchange.

    What the groups are is written to the log once, at the start.
    """

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.is_global_zero:
            for line in describe(trainer.optimizers):
                log.info(line)

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.fit_loop.epoch_loop._batches_that_stepped + 1  # that loggers will see
        rates = [float(group["lr"]) for optimizer in trainer.optimizers for group in optimizer.param_groups]
        if rates and (
            step == trainer.max_steps or (trainer.log_every_n_steps and step % trainer.log_every_n_steps == 0)
        ):
            # filled on the device: a number would be copied there, and the host would wait for that
            pl_module.log("lr", torch.full((), max(rates), dtype=torch.float32, device=pl_module.device))


def describe(optimizers: Iterable[torch.optim.Optimizer]) -> list[str]:
    """One line a parameter group: tensors, elements, peak rate, decay."""
    return [
        f"parameter group {index}: {len(group['params'])} tensors, {sum(p.numel() for p in group['params']):,} "
        "elements, "
        f"lr {group.get('initial_lr', group['lr']):.3g}, weight decay {group.get('weight_decay', 0.0):g}"
        for optimizer in optimizers
        for index, group in enumerate(optimizer.param_groups)
    ]
