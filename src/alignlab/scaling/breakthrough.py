"""BIG-bench's two numbers of a curve: linearity and breakthroughness (arXiv:2206.04615, appendix B)."""

from dataclasses import dataclass

import numpy as np

from alignlab.scaling.curve import Curve


@dataclass(frozen=True)
class Breakthrough:
    """I / root of the mean squared step, and I / root of the median squared step, where I is the whole change with its
    sign; each with the interval of 95 of 100 resamples.

    The second has no bound: a curve of which most steps are 0, because nothing can be seen there, has infinitely much.
    """

    linearity: float
    linearity_interval: tuple[float, float]
    breakthroughness: float
    breakthroughness_interval: tuple[float, float]


def breakthrough(curve: Curve) -> Breakthrough | None:
    """Both numbers, turned so that progress is positive; None for fewer than three sizes."""
    if len(curve) < 3:
        return None
    sign = 1.0 if curve.metric.higher else -1.0
    rows = np.concatenate([sign * curve.values[None], sign * curve.resamples])
    change = np.sign(rows.argmax(1) - rows.argmin(1)) * np.ptp(rows, axis=1)
    steps = np.diff(rows, axis=1) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        linear = np.nan_to_num(change / np.sqrt(steps.mean(1)), nan=0.0, posinf=np.inf, neginf=-np.inf)
        breaks = np.nan_to_num(change / np.sqrt(np.median(steps, 1)), nan=0.0, posinf=np.inf, neginf=-np.inf)
    return Breakthrough(float(linear[0]), _interval(linear[1:]), float(breaks[0]), _interval(breaks[1:]))


def _interval(values: np.ndarray) -> tuple[float, float]:
    ordered = np.sort(values)
    return float(ordered[int(0.025 * len(ordered))]), float(ordered[int(0.975 * len(ordered))])
