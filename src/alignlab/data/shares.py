"""Shares of several sources of data, and what of them is held out."""

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np


def shares_of(mix: Mapping[str, float]) -> dict[str, float]:
    """The shares of `mix={a: 7, b: 3}`, made to add up to 1.

    Raises:
        ValueError: fewer than two sources, or a share that is no number above 0.
    """
    if len(mix) < 2:
        raise ValueError(f"mix needs two sources or more, such as {{a.jsonl: 0.7, b.jsonl: 0.3}}; it has {len(mix)}")
    for name, share in mix.items():
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < float("inf"):
            raise ValueError(f"mix: the share of {name} is {share}; it must be a number above 0")
    return {str(name): share / sum(mix.values()) for name, share in mix.items()}


def num_draws(sizes: Sequence[int], weights: Sequence[float]) -> int:
    """Rows of an epoch that shows each source `weight` times."""
    return sum(sum(_times(size, weight)) for size, weight in zip(sizes, weights, strict=True))


def weighted_order(sizes: Sequence[int], weights: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """Numbers of the rows of sources, one behind the other, in a random order of one epoch: each as often as its
    source's weight says; of a broken weight's rest, others in every epoch.
    """
    if all(weight == 1 for weight in weights):
        return rng.permutation(sum(sizes))
    drawn, first = [], 0
    for size, weight in zip(sizes, weights, strict=True):
        whole, rest = _times(size, weight)
        drawn += [np.arange(first, first + size)] * (whole // max(size, 1))
        drawn.append(first + rng.permutation(size)[:rest])
        first += size
    return rng.permutation(np.concatenate(drawn))


def _times(size: int, weight: float) -> tuple[int, int]:
    """How many rows a source gives by being drawn whole, and how many besides."""
    whole = math.floor(weight)
    return whole * size, round((weight - whole) * size)


def hashed(name: str) -> int:
    """A hash of a name, 64 bits."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


def held_out_of(hashes: np.ndarray, share: float, most: int | None = None) -> np.ndarray:
    """Which of some things are held out, by the hashes of their names (uint64): bool, at most `most`. What one thing
    is doesn't depend on the others, as long as there aren't too many.
    """
    held_out = hashes < np.uint64(min(int(share * 2**64), 2**64 - 1))
    if most is not None and held_out.sum() > most:
        held_out = np.zeros(len(hashes), bool)
        held_out[np.argsort(hashes, kind="stable")[:most]] = True
    return held_out
