"""Over-optimisation of a reward model: what a gold judge says while the proxy that is trained on rises, over the KL
divergence from the start (arXiv:2210.10760).

R(d) = d (a - b log d) with d = sqrt(KL), for reinforcement learning (sec. 3.1): it turns at d = exp(a / b - 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alignlab.scaling.shapes import AGREE
from alignlab.studies.reading.tables import logged

NEEDED = 6  # points beyond the start
RESAMPLES = 1000
FALLEN = 0.1  # share of the gold's gain that has to be lost again


@dataclass(frozen=True)
class Points:
    """N validations of all runs: KL in nats, gains of proxy and gold over each run's start, the run's number."""

    kl: np.ndarray
    proxy: np.ndarray
    gold: np.ndarray
    run: np.ndarray


@dataclass(frozen=True)
class Optimised:
    """What gold and proxy do over KL.

    Attributes:
        code: `overoptimised`, `rising`, `insufficient`.
        support: share of the resamples in which the gold turns within the runs and falls, and the proxy goes on.
        proxy, gold: (a, b) of each.
        peak: KL at which the gold turns, with 95 % of the resamples; None where it doesn't.
    """

    code: str
    text: str
    support: float
    points: Points
    proxy: tuple[float, float] = (0.0, 0.0)
    gold: tuple[float, float] = (0.0, 0.0)
    peak: tuple[float, float, float] | None = None


def read(runs: Sequence[Path], kl: str, proxy: str, gold: str) -> Points:
    """Validations of runs that log all three.

    Raises:
        ValueError: no run does; names what they log.
    """
    rows, names = [], set()
    for number, run in enumerate(runs):
        curves = logged(run).curves
        names |= set(curves)
        three = [dict(curves.get(name, ())) for name in (kl, proxy, gold)]
        steps = sorted(set.intersection(*(set(each) for each in three)))
        there = [[each[step] for each in three] for step in steps]
        there = [row for row in there if np.isfinite(row).all()]
        if there:
            first = min(there, key=lambda row: row[0])  # validated before anything was learned, or soon after
            rows += [(max(k, 0.0), p - first[1], g - first[2], number) for k, p, g in there]
    if not rows:
        known = ", ".join(sorted(name for name in names if name.startswith("val/"))) or "nothing"
        raise ValueError(f"no run has logged {kl}, {proxy} and {gold} together; there is: {known}")
    columns = np.array(rows, dtype=float).T
    return Points(columns[0], columns[1], columns[2], columns[3].astype(int))


def optimised(points: Points) -> Optimised:
    """Whether the gold judge turns while the proxy rises on; resamples are of runs where there are four, else of
    validations.
    """
    moved = points.kl > 0
    if moved.sum() < NEEDED or np.ptp(np.sqrt(points.kl)) < 1e-6:
        text = f"{int(moved.sum())} validations away from the start; {NEEDED} are needed, over a range of KL."
        return Optimised("insufficient", text, 0.0, points)
    d = np.sqrt(points.kl[moved])
    proxy, gold, run = points.proxy[moved], points.gold[moved], points.run[moved]
    random = np.random.default_rng(0)
    peaks, said = [], 0
    for _ in range(RESAMPLES):
        drawn = _drawn(run, random)
        a, b = fitted(d[drawn], gold[drawn])
        turn = _turn(a, b, d)
        p = fitted(d[drawn], proxy[drawn])
        if turn is not None:
            peaks.append(turn**2)
            said += law(d.max(), *p) > law(turn, *p)
    support = said / RESAMPLES
    own = fitted(d, gold)
    turn, ends = _turn(*own, d), float(d.max() ** 2)
    both = {"support": support, "points": points, "proxy": fitted(d, proxy), "gold": own}
    if turn is not None and support >= AGREE:
        low, high = np.quantile(peaks, [0.025, 0.975])
        lost = 1 - float(law(d.max(), *own) / law(turn, *own))
        text = (
            f"Over-optimised: the gold judge is best at {turn**2:.3g} nats (95 %: {low:.3g} to {high:.3g}) and has "
            f"lost {lost:.0%} of its gain at {ends:.3g}, while the proxy rises on ({support:.0%} of the resamples)."
        )
        return Optimised("overoptimised", text, peak=(turn**2, float(low), float(high)), **both)
    if support <= 1 - AGREE and law(d.max(), *own) > 0:
        text = (
            f"No turn up to {ends:.3g} nats: the gold judge rises with the proxy ({1 - support:.0%} of the resamples)."
        )
        return Optimised("rising", text, **both)
    text = f"Not enough to tell: the gold judge turns in {support:.0%} of the resamples; more seeds, or more KL."
    return Optimised("insufficient", text, **both)


def law(d: np.ndarray | float, a: float, b: float) -> np.ndarray | float:
    """R(d) = d (a - b log d)."""
    return d * (a - b * np.log(d))


def fitted(d: np.ndarray, reward: np.ndarray) -> tuple[float, float]:
    """a and b by least squares."""
    columns = np.stack([d, -d * np.log(d)], 1)
    a, b = np.linalg.lstsq(columns, reward, rcond=None)[0]
    return float(a), float(b)


def _turn(a: float, b: float, d: np.ndarray) -> float | None:
    """Where the law turns, if that is within the runs and something is lost behind it."""
    if b <= 0 or not a / b < 30:
        return None
    turn = float(np.exp(a / b - 1))
    inside = d.min() < turn < d.max()
    return turn if inside and law(d.max(), a, b) < (1 - FALLEN) * law(turn, a, b) else None


def _drawn(run: np.ndarray, random: np.random.Generator) -> np.ndarray:
    names = np.unique(run)
    if len(names) < 4:
        return random.integers(0, len(run), len(run))
    return np.concatenate([np.flatnonzero(run == each) for each in random.choice(names, len(names))])
