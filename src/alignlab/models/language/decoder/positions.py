"""Where a token stands, as a decoder sees it: rotations (RoPE, xPos), biases on attention (ALiBi, T5), and which keys a
query sees.

Legend: B rows, T tokens, H heads, D head width. A mask is True where a query sees a key.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Seen(NamedTuple):
    """What all layers share of a batch."""

    mask: Tensor | None  # (B or 1, 1, T, T) bool, or a bias (B or 1, H, T, T); None: causal
    cosine: Tensor | None = None  # (B or 1, T, 1, D)
    sine: Tensor | None = None  # the same, with the sign of the rotation
    real: Tensor | None = None  # (B, T) bool, no padding; None: everywhere
    growth: Tensor | None = None  # (B or 1, T, 1, D) of queries, its inverse of keys; None: 1


BUCKETS, FARTHEST = 32, 128  # T5's: distances that it tells apart, and from where on it tells none
GAMMA, SPAN = 0.4, 512  # xPos's: least base of its powers, and tokens over which one power is taken


def rotations(inverse_frequencies: Tensor, position: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines at `position` (B or 1, T): (B or 1, T, 1, D) each.

    arXiv:2104.09864, with halves of a head instead of pairs, as Llama's released weights want it.
    """
    angles = position[..., None].float() * inverse_frequencies.float()
    cosine, sine = angles.cos(), angles.sin()
    return tuple(torch.cat(halves, -1)[:, :, None].to(dtype) for halves in ((cosine, cosine), (-sine, sine)))


def rotate(x: Tensor, seen: Seen) -> Tensor:
    """Turns (B, T, heads, D) by the places of its tokens."""
    if seen.cosine is None:
        return x
    return torch.addcmul(x * seen.cosine, x.roll(x.shape[-1] // 2, -1), seen.sine)


def growth(position: Tensor, width: int, length: int, dtype: torch.dtype) -> Tensor:
    """xPos's powers at `position` (B or 1, T): (B or 1, T, 1, D), of queries; keys have the inverse, so that their
    product falls with the distance, the faster the faster a pair turns (arXiv:2212.10554, eq. 6 to 8).

    Counted from the middle of a row of `length`, which changes no product and keeps numbers small.
    """
    half = torch.arange(0, width, 2, device=position.device).float() / width
    base = (half + GAMMA) / (1 + GAMMA)
    powers = base ** ((position[..., None].float() - length // 2) / SPAN)
    return torch.cat([powers, powers], -1)[:, :, None].to(dtype)


def buckets(length: int, both_ways: bool, device: torch.device) -> Tensor:
    """Which of T5's 32 distances each of query - key from 1 - T to T - 1 is, (2 T - 1,): the nearest ones apart,
    farther ones by the logarithm up to 128 (arXiv:1910.10683, sec. 2.1). Keys behind the query have their own half with
    `both_ways`, else they are at no distance.
    """
    distance = torch.arange(1 - length, length, device=device)
    count, offset = BUCKETS, torch.zeros_like(distance)
    if both_ways:
        count = BUCKETS // 2
        offset = (distance < 0) * count
    distance = distance.abs() if both_ways else distance.clamp(min=0)
    near = count // 2
    share = (distance.clamp(min=1).float() / near).log() / math.log(FARTHEST / near)
    far = (near + (share * (count - near)).long()).clamp(max=count - 1)
    return offset + torch.where(distance < near, distance, far)


def with_distances(table: Tensor, seen: Tensor | None, length: int, both_ways: bool, dtype: torch.dtype) -> Tensor:
    """T5's bias, learned in `table` (32, H), -inf where a key isn't seen: (B or 1, H, T, T)."""
    of_distance = table[buckets(length, both_ways, table.device)].T.to(dtype)  # (H, 2 T - 1)
    bias = of_distance.unfold(-1, length, 1).flip(-1)[None]  # query q sees key k at q - k, place q - k + T - 1
    seen = bias.new_ones(length, length, dtype=torch.bool).tril() if seen is None else seen
    return bias.masked_fill(~seen, -torch.inf)


def alibi_slopes(heads: int) -> Tensor:
    """Slopes of ALiBi for any number of heads (arXiv:2108.12409, section 3; odd ones interpolate): (heads,)."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    slopes += [2 ** (-4 * (2 * i + 1) / power) for i in range(heads - power)]
    return torch.tensor(slopes, dtype=torch.float32)


def visible(length: int, device: torch.device, document: Tensor | None, prefix: Tensor | None) -> Tensor | None:
    """Which keys each query sees, (B or 1, 1, T, T); None: those up to itself.

    document (B, T): numbers of a row's texts, which don't see each other. prefix (B, T) bool: tokens that every token
    of their text sees (arXiv:1910.10683, sec. 3.2.1).
    """
    if document is None and prefix is None:
        return None
    seen = torch.ones(length, length, dtype=torch.bool, device=device).tril()[None]
    if prefix is not None:
        seen = seen | prefix[:, None, :]
    if document is not None:
        seen = seen & (document[:, :, None] == document[:, None, :])
    return seen[:, None]


def with_alibi(slopes: Tensor, seen: Tensor | None, length: int, dtype: torch.dtype) -> Tensor:
    """ALiBi's bias, slope x (key - query), -inf where a key isn't seen: (B or 1, H, T, T).

    Keys after the query, in a prefix, are as far as those before it.
    """
    place = torch.arange(length, device=slopes.device)
    distance = (place[None, :] - place[:, None]).abs().neg()
    seen = distance.new_ones(length, length, dtype=torch.bool).tril() if seen is None else seen
    return (slopes[:, None, None] * distance).to(dtype).masked_fill(~seen, -torch.inf)
