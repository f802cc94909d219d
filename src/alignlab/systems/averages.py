"""What is logged in training: means over ranks, exchanged only at the steps that are logged."""

import lightning.pytorch as pl
from torch import Tensor

from alignlab.distributed.collectives import reduce_means


def logged_means(system: pl.LightningModule, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scalars without gradient: their means over ranks where this step's row is written, this rank's values at other
    steps.
    """
    values = {name: value.detach() for name, value in values.items()}
    is_logged = (system.global_step + 1) % system.trainer.log_every_n_steps == 0
    return reduce_means(values) if is_logged else values
