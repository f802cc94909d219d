"""The first number that isn't finite ends a run before the optimizer's step, and the module where it came up is named."""

from collections.abc import Callable

import torch
from omegaconf import DictConfig

Prepare = Callable[..., DictConfig]


class Breaks(torch.autograd.Function):
    """The identity, whose gradient isn't finite."""

    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * torch.inf
