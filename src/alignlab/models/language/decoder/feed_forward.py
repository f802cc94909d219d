"""The part of a decoder's layer that looks at one token at a time: an MLP, or a few of which each token chooses.

Legend: B rows, T tokens, N = B T, W width, I inner width, E experts, K experts of a token.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alignlab.models.language.decoder.settings import DecoderSettings

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


class FeedForward(nn.Module):
    """down(act(up(x))), or with a gate down(act(gate(x)) up(x)) (arXiv:2002.05202); gate and up are one matrix."""

    def __init__(self, settings: DecoderSettings) -> None:
        super().__init__()
        self.gated, self._activation = settings.gated, ACTIVATIONS[settings.gate]
        inner = settings.mlp_width
        self.up = nn.Linear(settings.width, inner * (1 + self.gated), bias=settings.bias)
        self.down = nn.Linear(inner, settings.width, bias=settings.bias)

    def forward(self, x: Tensor, real: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(B, T, W) -> the same, and None: nothing to balance."""
        return self.down(activated(self.up(x), self._activation, self.gated)), None


class Mixture(nn.Module):
    """The sum of the MLPs of the K experts that a router gives the highest chances, weighted by these, which sum to 1
    (arXiv:2401.04088, sec. 2.1). No token is dropped.
    """

    def __init__(self, settings: DecoderSettings) -> None:
        super().__init__()
        self.gated, self._activation = settings.gated, ACTIVATIONS[settings.gate]
        self.experts, self.chosen = settings.experts, settings.experts_per_token
        width, inner = settings.width, settings.mlp_width
        self.router, self._ratio = nn.Linear(width, self.experts, bias=False), settings.width_ratio
        self.up = nn.Parameter(torch.empty(self.experts, inner * (1 + self.gated), width))
        self.down = nn.Parameter(torch.empty(self.experts, width, inner))

    def forward(self, x: Tensor, real: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(B, T, W) -> the same, and how unevenly tokens choose, () (`balance`); real (B, T) bool: no padding."""
        flat = x.flatten(0, -2)
        chances = (self.router(flat).float() / self._ratio).softmax(-1)  # (N, E)
        weight, expert = chances.topk(self.chosen, -1)  # (N, K) each
        weight = (weight / weight.sum(-1, keepdim=True)).to(x.dtype)
        order = expert.flatten().argsort(stable=True)  # of N K pairs of token and expert, by expert
        token = order // self.chosen
        count = (expert.flatten()[:, None] == torch.arange(self.experts, device=x.device)).sum(0)
        out = self._products(flat[token], count) * weight.flatten()[order, None]
        summed = torch.zeros_like(flat).index_add(0, token, out.to(flat.dtype))
        return summed.view_as(x), balance(chances, expert, None if real is None else real.flatten())

    def _products(self, x: Tensor, count: Tensor) -> Tensor:
        """Rows sorted by expert through their experts' MLPs: (N K, W) -> the same."""
        if x.device.type == "cuda":  # the host doesn't know how many each gets, and needn't
            return self.grouped(x, count)
        parts = zip(x.split(count.tolist()), self.up, self.down, strict=True)
        return torch.cat(
            [F.linear(activated(F.linear(p, up), self._activation, self.gated), down) for p, up, down in parts]
        )

    def grouped(self, x: Tensor, count: Tensor) -> Tensor:
        """The same as two grouped products, for devices that the host runs ahead of; in 32 bits or fewer."""
        kind, ends = x.device.type, count.cumsum(0).to(torch.int32)
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        x, up, down = x.to(dtype), self.up.to(dtype), self.down.to(dtype)
        inner = F.grouped_mm(x, up.transpose(-2, -1), offs=ends)
        return F.grouped_mm(activated(inner, self._activation, self.gated), down.transpose(-2, -1), offs=ends)


def activated(x: Tensor, activation: Callable[[Tensor], Tensor], gated: bool) -> Tensor:
    """The activation of x, or of its first half times the second."""
    if not gated:
        return activation(x)
    gate, up = x.chunk(2, dim=-1)
    return activation(gate) * up


def balance(chances: Tensor, expert: Tensor, real: Tensor | None = None) -> Tensor:
    """E sum_e f_e p_e (arXiv:2101.03961, eq. 4 to 6): f_e the share of choices that fell on expert e, p_e its mean
    chance; 1 where all are chosen alike, E where all tokens choose one and are sure. -> ().

    chances (N, E), expert (N, K) int64, real (N,) bool: tokens that count.
    """
    experts = chances.shape[1]
    fell = (expert[..., None] == torch.arange(experts, device=expert.device)).float().mean(1)  # (N, E)
    if real is None:
        return experts * (fell.mean(0) * chances.mean(0)).sum()
    counted = real.to(chances.dtype)[:, None]
    number = counted.sum().clamp_min(1)
    return experts * ((fell * counted).sum(0) / number * (chances * counted).sum(0) / number).sum()
