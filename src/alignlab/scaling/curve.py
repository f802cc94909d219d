"""One metric of one task over the sizes of a ladder, with what chance does to it.

Legend: M models in order of x, N items, B resamples.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from alignlab.evaluation.intervals import LEVEL, wilson
from alignlab.scaling.metrics import Metric

RESAMPLES = 400


@dataclass(frozen=True)
class Curve:
    """A metric along a ladder.

    Attributes:
        x: (M,) sizes, ascending and positive.
        values: (M,).
        n: (M,) items that each value rests on; 0 where nobody says.
        names: of the models.
        items: (M, N) what each item gave, the same items in every column; None for a plain table.
        errors: (M,) standard errors, for a plain table with intervals; of hits they follow from n.
        chance: what guessing gets, where that isn't 0.
        ids: (N,) of the items.
    """

    task: str
    metric: Metric
    x: np.ndarray
    values: np.ndarray
    n: np.ndarray
    names: tuple[str, ...]
    items: np.ndarray | None = None
    errors: np.ndarray | None = None
    chance: float = 0.0
    notes: tuple[str, ...] = field(default=())
    ids: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.x)

    @property
    def places(self) -> np.ndarray:
        """(M,) log10 of the sizes."""
        return np.log10(self.x)

    @cached_property
    def noise(self) -> np.ndarray:
        """(M,) variances of the values against each other: what items have in common moves all of them together, and
        is taken away.
        """
        if self.items is not None and self.metric.centre == "mean":
            count = self.items.shape[1]
            cov = np.atleast_2d(np.cov(self.items)) / count
            own = np.diag(cov).copy()
            if self.metric.hits:
                own = np.maximum(own, _of_hits(self.values, self.n))
            off = (cov.sum(1) - np.diag(cov)) / max(len(cov) - 1, 1)
            return np.maximum(own - np.clip(off, 0, None), 0.1 * own) + 1e-15
        if self.items is not None:
            return self.resamples.var(0) + 1e-15
        if self.errors is not None:
            return self.errors**2 + 1e-15
        return _of_hits(self.values, self.n)

    @property
    def spread(self) -> float:
        """Deviation of a single item: what a change is large or small against."""
        if self.metric.hits:
            middle = float(np.clip(self.values.mean(), 0.02, 0.98))
            return (middle * (1 - middle)) ** 0.5
        if self.items is not None:
            return float(self.items.std(1).mean())
        return float(np.sqrt(self.noise * np.maximum(self.n, 1)).mean())

    @cached_property
    def resamples(self) -> np.ndarray:
        """(B, M) values as other items of the same kind would have given them; all models get the same items."""
        random = np.random.default_rng(0)
        if self.items is None:
            if self.metric.hits and self.errors is None:
                return random.binomial(self.n.astype(int), self.values, (RESAMPLES, len(self))) / self.n
            return random.normal(self.values, np.sqrt(self.noise), (RESAMPLES, len(self)))
        count = self.items.shape[1]
        if self.metric.centre == "median":
            drawn = (random.integers(0, count, count) for _ in range(RESAMPLES))
            return np.array([np.median(self.items[:, places], 1) for places in drawn])
        times = random.multinomial(count, np.full(count, 1 / count), RESAMPLES)
        return times @ self.items.T / count

    @cached_property
    def intervals(self) -> tuple[np.ndarray, np.ndarray]:
        """(M,), (M,): 95 %; Wilson's of hits, resampled of the rest."""
        if self.metric.hits and self.errors is None:
            return wilson(self.values, self.n)
        if self.items is not None:
            low, high = np.quantile(self.resamples, [0.025, 0.975], axis=0)
            return low, high
        reach = LEVEL * np.sqrt(self.noise)
        return self.values - reach, self.values + reach

    @property
    def floor(self) -> np.ndarray | None:
        """(M,): the least that so many items can show, 1 / n; None for what isn't counted in hits."""
        return 1 / np.maximum(self.n, 1) if self.metric.hits else None

    @property
    def ceiling_of_none(self) -> np.ndarray | None:
        """(M,): what a model without a hit may have all the same, 1 - 0.05^(1 / n)."""
        return zero_hits(self.n) if self.metric.hits else None

    def first(self, count: int) -> "Curve":
        """The curve of the smallest models alone."""
        cut = {name: getattr(self, name)[:count] for name in ("x", "values", "n", "names")}
        more = {name: part[:count] for name in ("items", "errors") if (part := getattr(self, name)) is not None}
        return replace(self, **cut, **more)


def zero_hits(n: np.ndarray) -> np.ndarray:
    """The largest chance of a hit with which none of n happens in one case of twenty."""
    return 1 - 0.05 ** (1 / np.maximum(n, 1))


def _of_hits(share: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Variances of shares, with a hit and a miss added, so that none is 0."""
    near = (share * n + 1) / (n + 2)
    return near * (1 - near) / (n + 2)
