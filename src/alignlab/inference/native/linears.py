"""The parts of a decoder: linear maps, dense or several side by side or with an adapter's low-rank update, norms, and
the block they make up.

Legend: R rows, I input width, O output width, r rank of an adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from alignlab.inference.native.kernels.small_matmul import MOST_ROWS, SmallMatmul, fits


class LowRank(NamedTuple):
    """An adapter's update of a linear: y += scale * x down^T up^T."""

    down: Tensor  # (r, I)
    up: Tensor  # (O, r)
    scale: float


class Linear:
    """y = x W^T + b, and an adapter's update on top while one is set."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight, self.bias = weight, bias  # (O, I), (O,)
        self.update: LowRank | None = None

    def __call__(self, x: Tensor) -> Tensor:
        y = self.apply(x)
        if self.update is None:
            return y
        down, up, scale = self.update
        return y + (F.linear(F.linear(x.to(down.dtype), down), up) * scale).to(y.dtype)

    def apply(self, x: Tensor) -> Tensor:
        """The map without an adapter."""
        return F.linear(x, self.weight, self.bias)

    def tensors(self) -> list[Tensor]:
        """What it keeps in memory."""
        return [self.weight] if self.bias is None else [self.weight, self.bias]


class Embedding:
    """Rows of a matrix by token."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight  # (V, W)

    def __call__(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight)

    def tensors(self) -> list[Tensor]:
        """What it keeps in memory."""
        return [self.weight]


class FastLinear(Linear):
    """The same, with the product of few rows (a step of the decode loop) at the speed of memory where a kernel for it
    exists.

    The weight stays as it is, so this also suits a live model's parameters.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(weight, bias)
        self.small = SmallMatmul(weight, bias=bias) if fits(weight) else None

    def apply(self, x: Tensor) -> Tensor:
        if self.small is not None and x.shape[:-1].numel() <= MOST_ROWS:
            return self.small(x)
        return F.linear(x, self.weight, self.bias)


class SideBySide(Linear):
    """Several linears of one input as if their matrices were stacked: for a live model, whose parameters stay where
    they are.
    """

    def __init__(self, parts: Sequence[Linear]) -> None:
        self.parts = parts
        self.update = None

    def apply(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self.parts], dim=-1)

    def tensors(self) -> list[Tensor]:
        return [tensor for part in self.parts for tensor in part.tensors()]


class Norm:
    """LayerNorm, or RMSNorm without a bias."""

    def __init__(self, weight: Tensor, bias: Tensor | None, eps: float) -> None:
        self.weight, self.bias, self.eps = weight, bias, eps

    def __call__(self, x: Tensor) -> Tensor:
        shape = (x.shape[-1],)
        if self.bias is None:
            return F.rms_norm(x, shape, self.weight, self.eps)
        return F.layer_norm(x, shape, self.weight, self.bias, self.eps)

    def tensors(self) -> list[Tensor]:
        """What it keeps in memory."""
        return [self.weight] if self.bias is None else [self.weight, self.bias]


@dataclass
class Layer:
    """One block's weights."""

    norm1: Norm
    norm2: Norm
    qkv: Linear
    out: Linear
    up: Linear
    down: Linear

    def linears(self) -> dict[str, Linear]:
        """The four maps by their part's name."""
        return {"qkv": self.qkv, "out": self.out, "up": self.up, "down": self.down}

    def tensors(self) -> list[Tensor]:
        """What it keeps in memory."""
        parts = (self.norm1, self.norm2, self.qkv, self.out, self.up, self.down)
        return [tensor for part in parts for tensor in part.tensors()]
