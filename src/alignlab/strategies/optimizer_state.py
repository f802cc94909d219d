"""Optimizer states of sharded training in the form that a plain torch optimizer writes, so that any strategy can go
on.

A plain state numbers the parameters in the order of the optimizer's groups: {"state": {number: {...}}, "param_groups":
[{"params": [numbers], ...}]}.
"""

from typing import Any

from torch import nn
from torch.optim import Optimizer

State = dict[str, Any]


def numbered(state: State) -> State:
    """From parameters named by path, as `torch.distributed.checkpoint` gives them, to numbers in the order of the
    groups.
    """
    order = {name: i for i, name in enumerate(name for group in state["param_groups"] for name in group["params"])}
    groups = [{**group, "params": [order[name] for name in group["params"]]} for group in state["param_groups"]]
    return {"state": {order[name]: value for name, value in state["state"].items()}, "param_groups": groups}


def named(state: State, optimizer: Optimizer, module: nn.Module) -> State:
    """The inverse of `numbered`: numbers stand for the optimizer's parameters in the order of its groups.

    Raises ValueError if the optimizer's groups have other sizes than the state's.
    """
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    check_groups(state, sizes)
    names = {id(p): name for name, p in module.named_parameters()}
    order = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    groups = [{**group, "params": [order[i] for i in group["params"]]} for group in state["param_groups"]]
    return {"state": {order[i]: value for i, value in state["state"].items()}, "param_groups": groups}


def check_groups(state: State, sizes: list[int]) -> None:
    """Raises ValueError unless the state has parameter groups of these sizes."""
    lengths = [len(group["params"]) for group in state["param_groups"]]
    if lengths != sizes:
        raise ValueError(
            f"the checkpoint's optimizer has parameter groups of {lengths} tensors, this run's of {sizes}: model or "
            "optim differ"
        )
