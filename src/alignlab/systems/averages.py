"""What is logged in training: means over ranks, exchanged only at the steps that are logged; and means over several
steps, of rows that not every step has.
"""

import lightning.pytorch as pl
import torch
from torch import Tensor

from alignlab.distributed.collectives import reduce_means, reduce_sum, world_size


def logged_means(system: pl.LightningModule, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scalars without gradient: their means over ranks where this step's row is written, this rank's values at other
    steps.
    """
    values = {name: value.detach() for name, value in values.items()}
    return reduce_means(values) if is_logged(system) else values


def is_logged(system: pl.LightningModule) -> bool:
    """Whether the present step's row is written."""
    return (system.global_step + 1) % system.trainer.log_every_n_steps == 0


class Tallies:
    """Sums and numbers of values since the last logged step, of all ranks: on every rank the same, so that one rank's
    checkpoint holds them all.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def add(self, tallies: dict[str, Tensor]) -> None:
        """Takes (2,) each, a sum and a number, those of this rank's batch; names are the same on all ranks."""
        if tallies and world_size() > 1:
            tallies = dict(zip(tallies, reduce_sum(torch.stack(list(tallies.values()))).unbind(), strict=True))
        for name, tally in tallies.items():
            self.sums[name] = tally + self.sums[name].to(tally.device) if name in self.sums else tally

    def means(self) -> dict[str, Tensor]:
        """The mean of each, NaN of what no row was of; begins anew."""
        means = {name: total / number for name, (total, number) in self.sums.items()}
        self.sums.clear()
        return means
