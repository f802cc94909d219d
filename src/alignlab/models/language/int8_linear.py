"""Frozen linear layers in 8 bits under a LoRA adapter: a quarter of float32's bytes, and no copy in full precision
kept for the backward pass.

Legend: N outputs, K inputs.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CHUNK_BYTES = 2**21  # of a matrix that are in floating point at a time while it is rounded


class ByRows(Protocol):
    """A matrix, or what reads one a few rows at a time."""

    shape: Sequence[int]

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice) -> Tensor: ...


def quantize_outputs(weight: ByRows) -> tuple[Tensor, Tensor]:
    """W ~ scale * q with q in [-127, 127] and scale = max |W| / 127 for each output: (N, K) -> (N,
    K) int8, (N,) fp32.
    """
    whole, scales = (
        torch.empty(weight.shape, dtype=torch.int8),
        torch.empty(len(weight), dtype=torch.float32),
    )  # first: no small thing between large ones
    count = max(1, CHUNK_BYTES // (4 * weight.shape[1]))
    for start in range(0, len(weight), count):
        rows = weight[start : start + count].float()
        low, high = rows.aminmax(dim=1)
        scale = torch.maximum(-low, high).clamp_(min=1e-12) / 127
        whole[start : start + count] = (rows / scale[:, None]).round_()
        scales[start : start + count] = scale
    return whole, scales


class FrozenInt8Linear(nn.Linear):
    """y = (x q^T) scale + b with int8 weights that are never trained; gradients go to x alone.

    An `nn.Linear`, so that peft puts adapters on it. Only the weights are rounded: a row's result doesn't depend on
    the rows beside it.

    Attributes:
        weight: (N, K) int8.
        scale: (N,) float32, a parameter like `weight`, so that both are found, moved and saved alike.
    """

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        q, scale = quantize_outputs(linear.weight.detach())
        self.weight = nn.Parameter(q, requires_grad=False)
        self.scale = nn.Parameter(scale, requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., N) in x's type, or autocast's."""
        y = _Int8Product.apply(x, self.weight, self.scale)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class _Int8Product(torch.autograd.Function):
    """x (q scale)^T; both passes widen q for themselves instead of keeping what the other made."""

    @staticmethod
    def forward(ctx, x: Tensor, q: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(q, scale)
        y = F.linear(x, q.to(x.dtype))
        return y * scale.to(y.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        q, scale = ctx.saved_tensors
        return (gradient * scale.to(gradient.dtype)) @ q.to(gradient.dtype), None, None


def quantize_blocks(model: nn.Module) -> None:
    """Replace the linear layers of a causal language model, its output layer apart, one by one. Freezes everything.

    Raises ValueError where there are none: GPT-2's layers are not torch's Linear.
    """
    head = model.get_output_embeddings()
    names = [name for name, module in model.named_modules() if type(module) is nn.Linear and module is not head]
    if not names:
        raise ValueError(f"{type(model).__name__} has no linear layers of torch's kind to quantise")
    for name in names:
        model.set_submodule(name, FrozenInt8Linear(model.get_submodule(name)))
    model.requires_grad_(False)
