"""Which system runs the method that a config names."""

from collections.abc import Callable
from functools import partial
from typing import Any

from alignlab.methods.method import Method
from alignlab.systems.method_system import MethodSystem


def system_of(model: partial, *, vocabulary: Any, optim: Callable[..., dict], key: str = "") -> MethodSystem:
    """The system that runs a method.

    Args:
        model: a partial of the method's class.
        vocabulary: of the data.
        optim: `optim(net, total_steps=...)` gives optimizer and schedule.
        key: the config's path of the model, which errors of the method's constructor begin with.
    """
    runs = MethodSystem
    if model.func.rolls_out:
        from alignlab.systems.rlhf.on_policy import OnPolicySystem as runs

    def make() -> Method:
        try:
            return model(vocabulary=vocabulary)
        except ValueError as error:
            raise ValueError(f"{key}: {error}" if key else str(error)) from error

    return runs(make, optim)
