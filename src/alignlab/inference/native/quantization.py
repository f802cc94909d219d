"""Linears with int8 weights, one scale an output: weight-only, and W8A8 with activations rounded as they come.

Legend: B rows, N outputs, K inputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from alignlab.inference.native.kernels.small_matmul import MOST_ROWS, SmallMatmul, fits
from alignlab.inference.native.linears import Embedding, Linear
from alignlab.inference.native.weights import StoredRows
from alignlab.models.language.int8_linear import quantize_outputs

BLOCKED_ROWS = 64  # up to here blocks of few rows are faster than widening the matrix
CHUNK = 8192  # outputs of a product that are in floating point at a time


class Int8Linear(Linear):
    """y = (x q^T) * scale + b: only the weights are rounded."""

    rounds_input = False

    def __init__(
        self, weight: Tensor | StoredRows, bias: Tensor | None = None, device: torch.device | str = "cpu"
    ) -> None:
        self._hold(*(tensor.to(device) for tensor in quantize_outputs(weight)), bias)

    @classmethod
    def rounded(cls, q: Tensor, scale: Tensor, bias: Tensor | None = None) -> Int8Linear:
        """Of a matrix that is in 8 bits already, without a copy."""
        linear = cls.__new__(cls)
        linear._hold(q, scale, bias)
        return linear

    def _hold(self, q: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        Linear.__init__(self, q, bias)
        self.scale = scale
        self.small = SmallMatmul(q, scale, bias, rounded=self.rounds_input) if fits(q) else None

    def apply(self, x: Tensor) -> Tensor:
        if self.small is not None and x.shape[:-1].numel() <= MOST_ROWS:
            return self.small(x)
        if self.small is not None and x.shape[:-1].numel() <= BLOCKED_ROWS:
            rows = x.reshape(-1, x.shape[-1])
            return torch.cat([self.small(block) for block in rows.split(MOST_ROWS)]).view(*x.shape[:-1], -1)
        parts = []
        for start in range(0, len(self.weight), CHUNK):
            rows = slice(start, start + CHUNK)
            parts.append(F.linear(x, self.weight[rows].to(x.dtype)) * self.scale[rows].to(x.dtype))
        y = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return y if self.bias is None else y + self.bias

    def tensors(self) -> list[Tensor]:
        return [*super().tensors(), self.scale]


class Int8Int8Linear(Int8Linear):
    """The same with x rounded to int8 row by row (absmax), so that the sums are integers."""

    rounds_input = True

    def apply(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if self.small is not None and len(rows) <= MOST_ROWS:
            return self.small(x)
        scale = rows.float().abs().amax(1, keepdim=True).clamp_(min=1e-12) / 127
        rounded = (rows / scale).round_().to(torch.int8)
        y = int_product(rounded, self.weight) * (scale * self.scale)
        y = y.view(*x.shape[:-1], -1).to(x.dtype)
        return y if self.bias is None else y + self.bias


class Int8Embedding(Embedding):
    """Rows of an int8 matrix, scaled as they are looked up."""

    def __init__(self, weight: Tensor, scale: Tensor, dtype: torch.dtype) -> None:
        super().__init__(weight)
        self.scale, self.dtype = scale, dtype

    def __call__(self, ids: Tensor) -> Tensor:
        return (F.embedding(ids, self.weight) * F.embedding(ids, self.scale[:, None])).to(self.dtype)

    def tensors(self) -> list[Tensor]:
        return [self.weight, self.scale]

    @classmethod
    def of(cls, weight: Tensor | StoredRows, head: Linear | None, device: torch.device | str = "cpu") -> Int8Embedding:
        """From an embedding, or from the head that was made of the same matrix."""
        q, scale = (head.weight, head.scale) if isinstance(head, Int8Linear) else quantize_outputs(weight)
        return cls(q.to(device), scale.to(device), weight.dtype)


def int_product(rows: Tensor, weight: Tensor) -> Tensor:
    """q w^T of 8-bit integers in 32: (B, K), (N, K) -> (B, N).

    CUDA's wants more than 16 rows, and K and N in multiples of 8: zeros fill them up.
    """
    (count, inputs), outputs = rows.shape, len(weight)
    below, right = max(0, 17 - count), -inputs % 8
    if below or right:
        rows = F.pad(rows, (0, right, 0, below))
    if right or outputs % 8:
        weight = F.pad(weight, (0, right, 0, -outputs % 8))
    return torch._int_mm(rows, weight.t())[:count, :outputs]
