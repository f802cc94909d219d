"""One optimizer step over several batches (`trainer.accumulate_grad_batches`): k batches of B give the loss and the
gradient of one of k B.

A mean over a count that varies is the sum over the step divided by the count of the whole step, over its batches and
over ranks, which is known before the first batch's backward pass because the loader looks ahead. Then sums of
gradients are right as they are: clipping, scalers of float16, sharded gradients and callbacks see nothing unusual.
"""

import logging
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from alignlab.methods.step import Step

log = logging.getLogger(__name__)


def step_of(system: pl.LightningModule, batch_index: int) -> Step:
    """What a method is told of batch `batch_index` of the epoch."""
    trainer = system.trainer
    accumulated = trainer.accumulate_grad_batches
    index = batch_index % accumulated
    total = int(min(accumulated, trainer.num_training_batches - batch_index + index))  # fewer at the end of an epoch
    ahead = partial(_batches_of_step, trainer) if accumulated > 1 else None
    return Step(system.global_step, index, total, ahead, _scale(trainer) * divisor(trainer), steps_of_epoch(trainer))


def steps_of_epoch(trainer: pl.Trainer) -> int | None:
    """Optimizer steps of an epoch; None while or where nobody knows them."""
    batches = trainer.num_training_batches
    return None if math.isinf(batches) else max(1, math.ceil(batches / trainer.accumulate_grad_batches))


def _scale(trainer: pl.Trainer) -> Tensor | float:
    """What Lightning multiplies a training loss with before its backward pass: 1 / accumulated batches, and float16's
    loss scale.
    """
    share = 1.0 / trainer.accumulate_grad_batches
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return share if scaler is None else scaler.scale(torch.full((), share, device=trainer.strategy.root_device))


def _batches_of_step(trainer: pl.Trainer) -> Sequence[Any]:
    """All batches of this process in the present step, on the host.

    Raises ValueError for a loader that doesn't look ahead.
    """
    step = getattr(trainer.train_dataloader, "step", None)
    if not step:
        raise ValueError(
            f"accumulate_grad_batches={trainer.accumulate_grad_batches}: the training loader doesn't look ahead, so "
            "nobody knows what the whole step counts; make it with alignlab.data.loaders.training_batches"
        )
    return step


def for_backward(system: pl.LightningModule, part: Tensor) -> Tensor:
    """A batch's part of the step's loss, times what the trainer divides it by.

    Lightning divides every loss by accumulate_grad_batches, also at the end of an epoch where fewer are summed;
    DeepSpeed does so once more.
    """
    return part * divisor(system.trainer)


def divisor(trainer: pl.Trainer) -> int:
    """What the trainer divides a loss by before its gradients are summed."""
    accumulated = trainer.accumulate_grad_batches
    return accumulated**2 if trainer.strategy.handles_gradient_accumulation else accumulated


class StepSums:
    """Sums what the batches of a step add to its statistics, on the device."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, step: Step, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """The sums of this step so far."""
        parts = {name: part.detach() for name, part in parts.items()}
        if step.index:
            parts = {name: part + self._sums[name] for name, part in parts.items() if name in self._sums}
        self._sums = parts
        return parts


@rank_zero_only
def say_what_differs(trainer: pl.Trainer, instead: str) -> None:
    """Says that a contrastive loss over accumulated batches isn't that of one large batch; `instead`: what would be."""
    if trainer.accumulate_grad_batches > 1:
        log.warning(
            "accumulate_grad_batches=%d: the contrastive loss compares within each batch, not within the whole step; "
            "%s",
            trainer.accumulate_grad_batches,
            instead,
        )
