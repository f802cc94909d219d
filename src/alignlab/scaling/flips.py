"""Which items change sides between neighbouring sizes, beside what chance would make of the same accuracies.

Legend: M models in order of x, N items.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import lgamma
from typing import Any

import numpy as np

from alignlab.scaling.curve import Curve

ORDER = ("exact_match", "rank_1", "multiple_choice")  # the metric that says which items are right: the first there is


@dataclass(frozen=True)
class Change:
    """From one size to the next, in items.

    Attributes:
        gained: wrong before, right then; lost: the other way.
        expected_gained, expected_lost: what there would be if which items are right were drawn anew at each size, as
            many of them as there were.
        low, high: 95 % of what `lost` would be then; `gained` is as much more as there are more right in all.
    """

    smaller: str
    larger: str
    right_before: int
    right_then: int
    gained: int
    lost: int
    expected_gained: float
    expected_lost: float
    low: int
    high: int

    def text(self) -> str:
        """A line for people."""
        noise = f"{self.expected_gained:.3g} and {self.expected_lost:.3g} ({self.low} to {self.high})"
        return f"{self.smaller} to {self.larger}: {self.gained} won, {self.lost} lost; drawn anew {noise}"


@dataclass(frozen=True)
class Flips:
    """Who changed sides.

    Attributes:
        changes: M - 1 of them.
        items: id and sides (M,) of every item that changed; those that were lost most often first.
    """

    metric: str
    names: tuple[str, ...]
    count: int
    changes: tuple[Change, ...]
    items: tuple[tuple[str, tuple[bool, ...]], ...]

    def as_json(self) -> dict[str, Any]:
        """For report.json."""
        items = [{"id": name, "right": [int(each) for each in sides]} for name, sides in self.items]
        return {
            "metric": self.metric,
            "items": self.count,
            "changes": [vars(each) for each in self.changes],
            "changed": items,
        }


def flips(curves: Sequence[Curve]) -> Flips | None:
    """Of the curves of one task; None where none counts hits of items, or there is one size alone.

    Of several runs of one size, most decide whether an item is right.
    """
    curve = next((each for name in ORDER for each in curves if each.metric.name == name), None)
    if curve is None or curve.items is None or len(curve) < 2:
        return None
    right = curve.items > 0.5  # (M, N)
    changes = []
    for at in range(len(curve) - 1):
        one, two = right[at], right[at + 1]
        before, then, count = int(one.sum()), int(two.sum()), len(one)
        low, high = _both_right(count, before, then)
        lost = before * (count - then) / count
        changes.append(
            Change(
                *(curve.names[at], curve.names[at + 1], before, then),
                *(int((~one & two).sum()), int((one & ~two).sum()), then - before + lost, lost),
                *(before - high, before - low),
            )
        )
    losses = (right[:-1] & ~right[1:]).sum(0)
    turns = (right[:-1] != right[1:]).sum(0)
    order = np.lexsort((np.arange(len(turns)), -turns, -losses))
    names = curve.ids or tuple(map(str, range(right.shape[1])))
    items = tuple((names[i], tuple(map(bool, right[:, i]))) for i in order if turns[i])
    return Flips(curve.metric.name, curve.names, right.shape[1], tuple(changes), items)


def _both_right(count: int, before: int, then: int) -> tuple[int, int]:
    """2.5 and 97.5 % of how many items are right at both sizes, if they are drawn anew (hypergeometric)."""
    least, most = max(0, before + then - count), min(before, then)
    both = np.arange(least, most + 1)
    logs = np.array([_log_choose(before, k) + _log_choose(count - before, then - k) for k in both.tolist()])
    chances = np.exp(logs - logs.max())
    reached = np.cumsum(chances / chances.sum())
    return int(both[np.searchsorted(reached, 0.025)]), int(both[min(np.searchsorted(reached, 0.975), len(both) - 1)])


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
