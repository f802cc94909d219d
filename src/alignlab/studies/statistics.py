"""What trials say about each other, without assumptions on how values are spread: permutations and resampling.

Losses throughout: smaller is better, infinity for a trial without a value. Functions take plain arrays and a seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

LEVEL = 0.05  # chance of a difference between settings that are equal
PAIRS = 6  # fewer can't reach it: of six signs, all alike, happen by chance in 2 of 64 cases
_EXACT = 11  # pairs whose signs are all tried
_DRAWS = 2000


@dataclass(frozen=True)
class Comparison:
    """Two settings at equal tuning budgets.

    Attributes:
        difference: of a from b in the better half of the points, negative where a is better.
        low, high: interval of the difference that 95 of 100 resamples fall into.
        p: how often equal settings would differ as much.
        pairs: points that it rests on.
    """

    difference: float
    low: float
    high: float
    p: float
    pairs: int

    @property
    def verdict(self) -> str:
        """`a`, `b`: which one is better; else `not distinguishable`."""
        if self.p > LEVEL or self.low <= 0 <= self.high:
            return "not distinguishable"
        return "a" if self.difference < 0 else "b"


def in_pairs(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Comparison:
    """Compares settings that were tried at the same points.

    The pairs are those whose better member is in the better half: what happens far from any optimum is no reason to
    choose. Under equal settings each pair's sign is a coin, and the choice of pairs doesn't depend on it, so that p is
    exact. A pair of which one has no value says nothing here: an accident would outweigh all others (`fails_more`).
    """
    a, b = np.array([a, b], dtype=float)
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    if len(a) < PAIRS:
        return Comparison(0.0, -np.inf, np.inf, 1.0, len(a))
    kept = np.argsort(np.minimum(a, b), kind="stable")[: max(PAIRS, -(-len(a) // 2))]
    gaps = (a - b)[kept]
    signs = _signs(len(gaps), seed)
    p = float(np.mean(np.abs(signs @ gaps) >= np.abs(gaps.sum()) - 1e-12))
    low, high = interval(gaps, seed)
    best = _of_best(a) - _of_best(b)
    if best * gaps.mean() < 0:  # half the points say one thing and the best say another
        p = 1.0
    return Comparison(float(gaps.mean()), low, high, p, len(gaps))


def fails_more(a: Sequence[float], b: Sequence[float]) -> float:
    """How often settings that fail equally often would differ as much in it: the sign test over pairs of which one
    alone has a value.
    """
    bad = np.isinf(np.array([a, b], dtype=float))
    n, least = int((bad[0] ^ bad[1]).sum()), int(min((bad[0] & ~bad[1]).sum(), (bad[1] & ~bad[0]).sum()))
    return min(1.0, 2 * sum(comb(n, k) for k in range(least + 1)) / 2**n) if n else 1.0


def apart(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Comparison:
    """Compares groups of trials at different points, by values from which the other parameters' effect was taken."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    difference = float(a.mean() - b.mean())
    if min(len(a), len(b)) < 4:
        return Comparison(difference, -np.inf, np.inf, 1.0, min(len(a), len(b)))
    random = np.random.default_rng(seed)
    both = np.concatenate([a, b])
    drawn = random.permuted(np.tile(both, (_DRAWS, 1)), axis=1)
    gaps = drawn[:, : len(a)].mean(1) - drawn[:, len(a) :].mean(1)
    p = float((np.sum(np.abs(gaps) >= abs(difference) - 1e-12) + 1) / (_DRAWS + 1))
    again = [each[random.integers(0, len(each), (_DRAWS, len(each)))].mean(1) for each in (a, b)]
    low, high = np.quantile(again[0] - again[1], [0.025, 0.975])
    return Comparison(difference, float(low), float(high), p, min(len(a), len(b)))


def interval(values: np.ndarray, seed: int = 0, share: float = 0.95) -> tuple[float, float]:
    """The interval of a mean by resampling."""
    values = np.asarray(values, dtype=float)
    drawn = np.random.default_rng(seed).integers(0, len(values), (_DRAWS, len(values)))
    low, high = np.quantile(values[drawn].mean(1), [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def best_of(values: Sequence[float], counts: Sequence[int]) -> list[tuple[float, float, float]]:
    """The best of n trials drawn with replacement: 5, 50 and 95 % of the draws are at most that.

    The bootstrap's distribution in closed form: P(best > x_(i)) = ((N - i) / N)^n.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    rest = 1 - np.arange(1, len(ordered) + 1) / len(ordered)
    told = []
    for n in counts:
        reached = 1 - rest**n
        told.append(tuple(float(ordered[np.searchsorted(reached, q)]) for q in (0.05, 0.5, 0.95)))
    return told


def best_interval(values: Sequence[float]) -> tuple[float, float]:
    """Where the best of as many trials would be, in nine of ten repetitions of the study."""
    low, _, high = best_of(values, [len(values)])[0]
    return low, high


def quadratic(places: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Columns of a model in which every parameter has its own bowl and every group its own level.

    Args:
        places: (N, D) of ranges, from 0 to 1; nan where the parameter doesn't exist.
        groups: (N, G) zeros and ones.
    Returns:
        (N, 1 + 2 D + G).
    """
    centred = np.nan_to_num(places - 0.5)
    return np.hstack([np.ones((len(places), 1)), centred, centred**2, groups])


def fitted(columns: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Least squares with a whisper of a penalty, which keeps it sound with few trials."""
    penalty = np.full(columns.shape[1], 1e-4)
    penalty[0] = 0.0
    return np.linalg.solve(columns.T @ columns / len(values) + np.diag(penalty), columns.T @ values / len(values))


def _signs(count: int, seed: int) -> np.ndarray:
    if count <= _EXACT:
        return 1 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
    return np.random.default_rng(seed).choice([-1, 1], (2 * _DRAWS, count))


def _of_best(values: np.ndarray, count: int = 3) -> float:
    return float(np.sort(values)[:count].mean())
