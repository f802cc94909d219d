"""Different random numbers on every rank, after equal initial weights."""

import lightning
import torch
from lightning.pytorch.callbacks import Callback


class SeedPerRank(Callback):
    """Seeds torch with `seed + rank` when training starts: ranks draw their own dropout and masking.

    It also makes training independent of what building the model and the sanity check have drawn.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        torch.manual_seed(self.seed + trainer.global_rank)
