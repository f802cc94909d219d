"""The shape of a curve over sizes, by order-restricted regression, with the share of resamples that agree.

Curves are read on the metric's own scale against log x, turned so that up is better. Legend: M models, B resamples.
"""

from dataclasses import dataclass, field
from functools import cache

import numpy as np

from alignlab.scaling.curve import Curve

SHAPES = (
    "flat",
    "smooth_up",
    "saturating",
    "sharp",
    "inverse",
    "u_shape",
    "inverted_u",
    "below_resolution",
    "insufficient",
)
SIZES = 4  # fewer say nothing
AGREE = 0.7  # share of the resamples
FEW = 100  # items, with fewer of which more of them have to agree
AGREE_OF_FEW = 0.85
FLAT = 0.4  # deviations of an item that a flat curve may have risen or fallen, at most
JUMP = 0.6  # share of the rise that lies in a quarter of the ladder
LATE = 0.15  # share of the rise in the first half of the ladder, where nothing seems to happen
EARLY = 0.75  # the same, where all that happens does


@dataclass(frozen=True)
class Shape:
    """What a curve looks like.

    Attributes:
        name: one of `SHAPES`.
        support: shape -> share of the resamples.
        why: a line for people where nothing can be said.
        place: between which sizes most of the rise lies, for a sharp one.
    """

    name: str
    support: dict[str, float] = field(default_factory=dict)
    why: str = ""
    place: tuple[float, float] | None = None

    @property
    def sure(self) -> float:
        """The share of the resamples that have this shape; 0 where nothing can be said."""
        return 0.0 if self.name == "insufficient" else self.support.get(self.name, 0.0)

    @property
    def rises(self) -> float:
        """The share that rise without a jump."""
        return self.support.get("smooth_up", 0.0) + self.support.get("saturating", 0.0)


def shape(curve: Curve) -> Shape:
    """The shape of a curve; `insufficient` rather than a guess."""
    if len(curve) < SIZES:
        return Shape("insufficient", why=f"{len(curve)} sizes; {SIZES} are the least")
    if curve.metric.hits:
        low, _ = curve.intervals
        if (low <= curve.ceiling_of_none).all():
            return Shape(
                "below_resolution", {"below_resolution": 1.0}, "no model is above what none of its items shows"
            )
    elif curve.spread == 0 and np.ptp(curve.values) == 0:
        return Shape("flat", {"flat": 1.0})
    sign = 1.0 if curve.metric.higher else -1.0
    u = (curve.places - curve.places[0]) / (curve.places[-1] - curve.places[0])
    told = Counted(u, curve.noise, FLAT * curve.spread)
    own = told.names(sign * curve.values[None], 1.0)[0]
    names = told.names(sign * curve.resamples, 2.0)  # noise of the items, and of drawing them again
    support = {name: float(np.mean(names == name)) for name in SHAPES if (names == name).any()}
    best = max(support, key=lambda name: support[name])
    few = curve.metric.hits and curve.n.min() < FEW
    if best == "insufficient" or support[best] < (AGREE_OF_FEW if few else AGREE):
        shares = ", ".join(f"{name} {share:.0%}" for name, share in sorted(support.items(), key=lambda p: -p[1])[:3])
        return Shape("insufficient", support, f"the noise allows several: {shares}")
    if own != best:
        return Shape("insufficient", support, f"resamples say {best}, the values themselves {own}")
    return Shape(best, support, place=_jump(curve, u, sign) if best == "sharp" else None)


@dataclass(frozen=True)
class Counted:
    """What decides on a shape: where sizes lie (M,) from 0 to 1, variances of values (M,), how much is flat."""

    u: np.ndarray
    noise: np.ndarray
    flat: float

    def names(self, y: np.ndarray, inflation: float) -> np.ndarray:
        """Shape of each row of (B, M) values.

        Args:
            inflation: of the noise: rows that were drawn from values that have noise themselves carry it twice.
        """
        noise = self.noise * inflation
        weights = 1 / noise
        level = (y @ weights / weights.sum())[:, None]
        up, down = monotone(y, weights), -monotone(-y, weights)
        off = [((y - fit) ** 2 * weights).sum(1) for fit in (level, up, down)]
        limit_flat, limit = limits(y.shape[1])
        slope, error = self._trend(y, weights)
        differs = (off[0] > limit_flat) | (np.abs(slope) > 2.17 * error)
        held = np.abs(slope) + 1.645 * error < self.flat * np.sqrt(inflation)
        peak, valley = turning(y, weights), turning(-y, weights)
        goes_up, goes_down = off[1] <= limit, off[2] <= limit
        turns = ~goes_up & ~goes_down
        names = np.full(len(y), "insufficient", dtype=object)
        names[~differs & held] = "flat"
        names[differs & goes_up & ~goes_down] = "up"
        names[differs & goes_down & ~goes_up] = "inverse"
        both = differs & goes_up & goes_down  # too little noise to be flat, too much for the order
        names[both & (off[2] - off[1] > 3)] = "up"
        names[both & (off[1] - off[2] > 3)] = "inverse"
        names[turns & (peak <= limit) & (peak < valley - 3)] = "inverted_u"
        names[turns & (valley <= limit) & (valley < peak - 3)] = "u_shape"
        rising = names == "up"
        names[rising] = self._rises(up[rising])
        return names

    def _trend(self, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
        """Change over the whole ladder by a straight line, and its error."""
        centred = self.u - (self.u * weights).sum() / weights.sum()
        square = (weights * centred**2).sum()
        return y @ (weights * centred) / square, float(square**-0.5)

    def _rises(self, up: np.ndarray) -> np.ndarray:
        """How curves rise: (B, M) that never fall -> names."""
        done = (up - up[:, :1]) / np.maximum(up[:, -1:] - up[:, :1], 1e-12)
        half = at(self.u, done, np.array([0.5]))[:, 0]
        share, begins = steepest(self.u, done)
        names = np.full(len(up), "smooth_up", dtype=object)
        names[half >= EARLY] = "saturating"
        names[(half <= LATE) | ((share >= JUMP) & (begins > 0.1))] = "sharp"
        return names


def monotone(y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The nearest rows that never fall, by least squares: (B, M) -> (B, M). Max-min formula of isotonic regression."""
    count = y.shape[1]
    sums = np.concatenate([np.zeros((len(y), 1)), np.cumsum(y * weights, 1)], 1)
    total = np.concatenate([[0.0], np.cumsum(weights)])
    means = np.full((len(y), count, count), np.inf)  # of places a to b
    for a in range(count):
        means[:, a, a:] = (sums[:, a + 1 :] - sums[:, [a]]) / (total[a + 1 :] - total[a])
    least = np.minimum.accumulate(means[:, :, ::-1], 2)[:, :, ::-1]  # min over b >= i, for each a
    rows = np.stack([least[:, : i + 1, i].max(1) for i in range(count)], 1)
    return rows


def turning(y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Squared distance, in noise, of rows to the nearest that rise and then fall: (B, M) -> (B,)."""
    best = np.full(len(y), np.inf)
    for top in range(1, y.shape[1] - 1):
        left = monotone(y[:, : top + 1], weights[: top + 1])
        right = -monotone(-y[:, top + 1 :], weights[top + 1 :])
        fit = np.concatenate([left, right], 1)
        best = np.minimum(best, ((y - fit) ** 2 * weights).sum(1))
    return best


@cache
def limits(count: int) -> tuple[float, float]:
    """What noise alone reaches: from a level in 3 of 100 cases, from a curve that never falls in 1 of 100 (at most: a
    level is the worst case).
    """
    y = np.random.default_rng(0).standard_normal((20_000, count))
    even = np.ones(count)
    apart = ((y - y.mean(1, keepdims=True)) ** 2).sum(1)
    up = ((y - monotone(y, even)) ** 2).sum(1)
    return float(np.quantile(apart, 0.97)), float(np.quantile(up, 0.99))


def at(u: np.ndarray, rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Rows (B, M) over u (M,), read at places (P,): (B, P)."""
    right = np.clip(np.searchsorted(u, places, "right"), 1, len(u) - 1)
    share = (places - u[right - 1]) / (u[right] - u[right - 1])
    return rows[:, right - 1] * (1 - share) + rows[:, right] * share


def steepest(u: np.ndarray, done: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest share of the rise that lies in a quarter of the ladder (of four sizes: in a third), and where that
    quarter begins: (B, M) -> (B,), (B,).
    """
    width = max(0.25, 1 / (len(u) - 1))
    starts = np.unique(np.clip(np.concatenate([u, u - width]), 0, 1 - width))
    shares = at(u, done, starts + width) - at(u, done, starts)
    place = shares.argmax(1)
    return shares[np.arange(len(done)), place], starts[place]


def _jump(curve: Curve, u: np.ndarray, sign: float) -> tuple[float, float]:
    """The sizes between which the largest part of the rise lies."""
    up = monotone(sign * curve.values[None], 1 / curve.noise)
    _, begins = steepest(u, (up - up[:, :1]) / max(float(up[0, -1] - up[0, 0]), 1e-12))
    width = max(0.25, 1 / (len(u) - 1))
    low, high = (curve.places[0] + (begins[0] + w) * np.ptp(curve.places) for w in (0.0, width))
    return float(10**low), float(10**high)
