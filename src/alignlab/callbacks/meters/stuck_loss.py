"""Says when a loss stays where a model stands that has learnt nothing."""

import logging
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from alignlab.methods.parts.blind import Blind

log = logging.getLogger(__name__)


class StuckLoss(Callback):
    """Warns once of each loss that for `steps` optimizer steps was that of a model which tells nothing apart
    (`Method.blind`), with the three usual causes. Later windows count too: a collapse is noticed.

    Ranks: rank zero's own losses. The device is asked once every `steps` steps.

    Args:
        steps: of a window.
        margin: how far from that a loss that stays there is on average, as a share of it.

    Raises:
        ValueError: fewer steps than 1, or a margin outside (0, 1).
    """

    def __init__(self, steps: int = 300, margin: float = 0.03) -> None:
        if steps < 1 or not 0 < margin < 1:
            raise ValueError(f"steps={steps} must be at least 1, margin={margin} between 0 and 1")
        self.steps, self.margin = steps, margin
        self._sums: dict[str, Tensor] = {}  # over the window: loss / blind loss, and its distance from 1
        self._counts: dict[str, int] = {}
        self._said: set[str] = set()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_rank or trainer.fit_loop._should_accumulate() or not hasattr(pl_module, "blind"):
            return
        for name, blind in pl_module.blind(batch).items():
            loss = trainer.callback_metrics.get(f"train/{name}")
            if loss is None or name in self._said:
                continue
            share = loss.detach().float() / blind.loss
            self._sums[name] = self._sums.get(name, 0.0) + torch.stack([share, (share - 1).abs()])
            self._counts[name] = self._counts.get(name, 0) + 1
            if self._counts[name] == self.steps:
                mean, distance = (self._sums.pop(name) / self._counts.pop(name)).tolist()
                if distance < self.margin:
                    self._say(name, blind, mean * blind.loss, trainer.global_step)

    def _say(self, name: str, blind: Blind, mean: float, step: int) -> None:
        self._said.add(name)
        log.warning(
            "train/%s was %.3f on average over the last %d steps, to step %d: it stays at %s, %.3f, as of a model that "
            "tells nothing apart. Usual causes: (1) %s; (2) %s; (3) %s",
            *(name, mean, self.steps, step, blind.stands_for, blind.loss, *blind.causes),
        )
