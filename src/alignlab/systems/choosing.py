"""Which system runs the method that a config names."""

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch as pl

from alignlab.systems.method_system import MethodSystem


def system_of(model: partial, *, vocabulary: Any, optim: Callable[..., dict]) -> pl.LightningModule:
    """The system that a model's config names, or the one that runs the method it names.

    Args:
        model: a partial of a LightningModule's class, or of a `Method`'s.
        vocabulary: of the data.
        optim: `optim(net, total_steps=...)` gives optimizer and schedule.
    """
    if issubclass(model.func, pl.LightningModule):
        return model(vocabulary=vocabulary, optim=optim)
    runs = MethodSystem
    if model.func.rolls_out:
        from alignlab.systems.rlhf.on_policy import OnPolicySystem as runs
    return runs(partial(model, vocabulary=vocabulary), optim)
