"""Ladders of models whose curves are known: what an item gives under each, with hard and easy items for all of them."""

from statistics import NormalDist

from alignlab.scaling.curve import Curve
from alignlab.scaling.metrics import METRICS

import numpy as np

KINDS = ("flat", "smooth_up", "saturating", "sharp", "inverse", "u_shape", "inverted_u", "below_resolution")
SHARED = 0.5  # correlation of an item's outcome between models, on the scale of the copula


def truth(kind: str, u: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Chances of a hit at places u, from 0 to 1."""
    low, high = random.uniform(0.1, 0.3), random.uniform(0.6, 0.9)
    if kind == "flat":
        return np.full(len(u), random.uniform(0.2, 0.8))
    if kind == "below_resolution":
        return 10 ** (random.uniform(-4, -3) + u * random.uniform(0, 1)) / 2
    if kind == "smooth_up":
        bend = random.uniform(-0.6, 0.6)  # of the line
        return low + (high - low) * (u + bend * u * (u - 1))
    if kind == "inverse":
        bend = random.uniform(-1, 1)
        return high - (high - low) * (u + bend * u * (u - 1))
    if kind == "saturating":
        done = 1 - np.exp(-u / random.uniform(0.1, 0.25))
        return low + (high - low) * done / done[-1]
    if kind == "sharp":
        if random.random() < 0.5:  # a step
            return low * 0.3 + (high - low * 0.3) / (1 + np.exp(-(u - random.uniform(0.4, 0.85)) / 0.03))
        return high * u ** random.uniform(4, 8)  # the chance of all tokens
    side = random.uniform(0.4, 0.6)
    hill = 1 - ((u - side) / np.where(u < side, side, 1 - side)) ** 2
    return low + (high - low) * hill if kind == "inverted_u" else high - (high - low) * hill


def outcomes(chance: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """(M, count) hits of models with these chances."""
    border = np.array([NormalDist().inv_cdf(float(np.clip(p, 1e-12, 1 - 1e-12))) for p in chance])[:, None]
    own = random.standard_normal((len(chance), count))
    return (SHARED**0.5 * random.standard_normal(count) + (1 - SHARED) ** 0.5 * own < border).astype(float)


def planted(kind: str, seed: int, sizes: int = 5, count: int = 200) -> Curve:
    """A curve of exact match."""
    random = np.random.default_rng([seed, KINDS.index(kind)])
    x = 10 ** (6 + np.linspace(0, 2.5, sizes))
    items = outcomes(truth(kind, np.linspace(0, 1, sizes), random), count, random)
    names = tuple(f"model_{place}" for place in range(sizes))
    return Curve(kind, METRICS["exact_match"], x, items.mean(1), np.full(sizes, count), names, items)
