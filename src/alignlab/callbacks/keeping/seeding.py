"""Random numbers: the same initial weights on every device and rank, then different ones on every rank, untouched by
validation, those of the
checkpoint in a resumed run.
"""

import functools
import logging
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from alignlab.callbacks.keeping import random_states

log = logging.getLogger(__name__)


class SeedPerRank(Callback):
    """Seeds torch with `seed + rank` when training starts: ranks draw their own dropout and masking.

    Ranks: each for itself, no exchange.

    The net is built on the CPU, with the CPU's generator, and moved to its device once: a seed means the same net
    everywhere. It also makes training independent of what building the model and validations have drawn. A run that
    goes on from a checkpoint goes on with its random states, if seed and number of processes are the same; else it
    seeds anew.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._saved: dict[str, Any] | None = None
        self._before_validation: random_states.States | None = None

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Lightning would have `configure_model` make its tensors on the GPU."""
        build = pl_module.configure_model

        @functools.wraps(build)
        def build_on_host() -> None:
            pl_module.__dict__.pop("configure_model", None)
            with torch.device("cpu"):
                build()

        pl_module.configure_model = build_on_host

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._saved = checkpoint.get("random")

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        saved, self._saved = self._saved, None
        ranks = saved["ranks"] if saved is not None and saved["seed"] == self.seed else []
        if len(ranks) == trainer.world_size:
            random_states.restore(ranks[trainer.global_rank], pl_module.device)
            return
        if saved is not None and trainer.is_global_zero:
            log.warning(
                "random states of the checkpoint aren't used: seed %s with %d processes there, seed %s with %d here",
                *(saved["seed"], len(saved["ranks"]), self.seed, trainer.world_size),
            )
        # the step: a run that goes on doesn't repeat its beginning
        torch.manual_seed(self.seed + trainer.global_rank + trainer.global_step * trainer.world_size)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._before_validation = random_states.capture(pl_module.device)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._before_validation is not None:
            random_states.restore(self._before_validation, pl_module.device)
            self._before_validation = None
