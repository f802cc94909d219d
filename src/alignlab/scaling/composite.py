"""Tasks of several parts: whether the whole is what its parts, each at its own rate, would give together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alignlab.scaling.curve import Curve

WHOLE = ("exact_match", "rank_1", "multiple_choice")


@dataclass(frozen=True)
class Composite:
    """The whole against the product of its parts, over M sizes.

    Attributes:
        product: (M,) of the parts' rates.
        low, high: (M,) 95 % of its resamples.
        whole: (M,) observed.
        gap_low, gap_high: (M,) of the whole minus the product, of the same items.
    """

    parts: tuple[str, ...]
    x: np.ndarray
    product: np.ndarray
    low: np.ndarray
    high: np.ndarray
    whole: np.ndarray
    gap_low: np.ndarray
    gap_high: np.ndarray

    @property
    def explains(self) -> bool:
        """Whether the product is the whole at every size, as far as can be seen."""
        return bool(((self.gap_low <= 0) & (self.gap_high >= 0)).all())

    def text(self) -> str:
        """A line for people."""
        if self.explains:
            return f"The whole is the product of its {len(self.parts)} parts at every size, within the noise."
        above, below = int((self.gap_low > 0).sum()), int((self.gap_high < 0).sum())
        sides = [f"above it at {above}" if above else "", f"below it at {below}" if below else ""]
        much = " and ".join(side for side in sides if side)
        return f"The whole isn't the product of its {len(self.parts)} parts: {much} of {len(self.x)} sizes."


def composite(curves: Sequence[Curve]) -> Composite | None:
    """The parts of a task against its whole; None for a task without parts of the same models and items."""
    parts = [curve for curve in curves if curve.metric.name.startswith("part:") and curve.items is not None]
    whole = next((curve for name in WHOLE for curve in curves if curve.metric.name == name), None)
    if len(parts) < 2 or whole is None or any(len(p) != len(whole) or (p.n != whole.n).any() for p in parts):
        return None
    # the same generator draws the same items for each of them
    drawn = np.prod([part.resamples for part in parts], 0)
    gaps = whole.resamples - drawn
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    gap_low, gap_high = np.quantile(gaps, [0.025, 0.975], axis=0)
    product = np.prod([part.values for part in parts], 0)
    names = tuple(part.metric.name.removeprefix("part:") for part in parts)
    return Composite(names, whole.x, product, low, high, whole.values, gap_low, gap_high)
