"""Laws fitted to a curve over log x, chosen by AICc, and what each would have said of the largest model.

Legend: M models, B resamples, G places of a grid for what a law isn't linear in, P coefficients it is linear in.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from alignlab.scaling.curve import Curve

Theta = tuple[float, ...]
EXPONENTS = tuple(sign * 10**e for sign in (1, -1) for e in np.linspace(-2, 0.7, 45))
WIDTHS = tuple(10**e for e in np.linspace(-1.6, 0.3, 16))


@dataclass(frozen=True)
class Law:
    """A form of curve.

    Attributes:
        text: the formula.
        free: how many numbers are fitted.
        columns: (u, theta) -> (M, P); u is log10 of x over the largest x of the fit.
        thetas: the first grid, for a ladder of this length in log10.
        steps: (theta, length) -> how far its neighbours on that grid are.
        gap: whether the distance to a perfect model is what follows the law.
    """

    name: str
    text: str
    free: int
    columns: Callable[[np.ndarray, Theta], np.ndarray]
    thetas: Callable[[float], Sequence[Theta]]
    steps: Callable[[Theta, float], Theta] = lambda theta, length: ()
    gap: bool = False


def _ones(*columns: np.ndarray) -> np.ndarray:
    return np.stack([np.ones_like(columns[0]), *columns], 1)


def _logistic(u: np.ndarray, theta: Theta) -> np.ndarray:
    return (1 / (1 + np.exp(-np.clip((u - theta[0]) / theta[1], -60, 60))))[:, None]


def _bends(length: float) -> Sequence[Theta]:
    return [(-length * share,) for share in np.linspace(0.02, 0.95, 48)]


def _of_exponent(theta: Theta, length: float) -> Theta:
    return (0.15 * abs(theta[0]),)


def _logistic_grid(length: float) -> Sequence[Theta]:
    return [(-length * a, length * w) for a in np.linspace(-0.6, 1.1, 52) for w in WIDTHS]


LAWS = (
    Law("linear", "a + b log x", 2, lambda u, _: _ones(u), lambda _: [()]),
    Law(
        "power",
        "best ± A x^-b",
        2,
        lambda u, t: (10 ** (-t[0] * u))[:, None],
        lambda _: [(b,) for b in EXPONENTS],
        _of_exponent,
        gap=True,
    ),
    Law(
        "saturating",
        "limit ± A x^-b",
        3,
        lambda u, t: _ones(10 ** (-t[0] * u)),
        lambda _: [(b,) for b in EXPONENTS if b > 0],
        _of_exponent,
    ),
    Law(
        "logistic",
        "chance + A / (1 + exp(-(log x - m) / w))",
        3,
        _logistic,
        _logistic_grid,
        lambda t, length: (length / 30, 0.33 * t[1]),
    ),
    Law(
        "broken",
        "a, and from x0 on a + b log(x / x0)",
        3,
        lambda u, t: _ones(np.maximum(u - t[0], 0)),
        _bends,
        lambda t, length: (length / 50,),
    ),
)


@dataclass(frozen=True)
class Fit:
    """A law at one curve.

    Attributes:
        aicc: Akaike's criterion for few points; infinite where a law has too many numbers for the sizes.
        misfit: squared distance in noise; about M - `free` for a law that holds.
        theta, weights: what was fitted, in u.
    """

    law: Law
    aicc: float
    misfit: float
    theta: Theta
    weights: tuple[float, ...]
    largest: float
    curve: Curve
    grid: np.ndarray

    def at(self, x: np.ndarray | float) -> np.ndarray:
        """The law's values, no better than perfect."""
        u = np.log10(np.atleast_1d(x) / self.largest)
        return _back(self.curve, self.law, self.law.columns(u, self.theta) @ np.array(self.weights))

    @property
    def wider(self) -> float:
        """How much larger than the noise the law's misfit is: intervals are widened by it, at least 1."""
        more = len(self.curve) - self.law.free
        return math.sqrt(max(1.0, self.misfit / more)) if more > 0 else 1.0

    @property
    def holds(self) -> bool:
        """Whether the points lie about as near as their noise allows."""
        return self.wider < 2.0

    def numbers(self) -> dict[str, object]:
        """For JSON."""
        told = {"law": self.law.name, "formula": self.law.text, "u": f"log10(x / {self.largest:g})"}
        aicc = None if math.isinf(self.aicc) else round(self.aicc, 3)
        fitted = {"theta": list(map(float, self.theta)), "weights": list(map(float, self.weights))}
        return told | {"aicc": aicc, "misfit": round(self.misfit, 3), **fitted}


def fits(curve: Curve) -> list[Fit]:
    """All laws that the sizes can hold, the best by AICc first."""
    told = []
    for law in LAWS:
        if len(curve) > law.free:
            grid = _grid(curve, law)
            place, weights, misfit = _best(curve, law, grid, curve.values[None])
            theta = tuple(map(float, grid[place[0]]))
            more = len(curve) - law.free - 1
            few = 2 * law.free * (law.free + 1) / more if more > 0 else math.inf
            aicc = float(misfit[0]) + 2 * law.free + few
            told.append(Fit(law, aicc, float(misfit[0]), theta, tuple(weights[0]), float(curve.x[-1]), curve, grid))
    return sorted(told, key=lambda fit: (fit.aicc, fit.misfit))


@dataclass(frozen=True)
class Expected:
    """What is expected of a model of size x: a value and the 95 % interval of its measurement on n items."""

    law: str
    x: float
    value: float
    low: float
    high: float


def expected(curve: Curve, x: float, n: int | None = None, law: str | None = None) -> Expected:
    """A law carried on to x: the best by AICc in each resample, so that the doubt about the law is in the interval.

    Args:
        n: items that the model will be measured on; default: those of the largest.
        law: by name; None: chosen in each resample.
    Raises:
        ValueError: there are too few sizes for any law.
    """
    best = [fit for fit in fits(curve) if law in (None, fit.law.name)]
    if not best:
        raise ValueError(f"{len(curve)} sizes are too few for {law or 'any law'}")
    rows = curve.resamples
    scores, values = [], []
    for fit in [fit for fit in best if law or not math.isinf(fit.aicc)] or best[:1]:
        each, grid = fit.law, fit.grid
        place, weights, misfit = _best(curve, each, grid, rows)
        more = len(curve) - each.free - 1
        scores.append(misfit / 2 + 2 * each.free + (2 * each.free * (each.free + 1) / more if more > 0 else 0))
        u = np.array([math.log10(x / curve.x[-1])])
        columns = np.array([each.columns(u, tuple(grid[g]))[0] for g in range(len(grid))])[place]
        values.append(_back(curve, each, (columns * weights).sum(1)))
    chosen = np.array(values)[np.array(scores).argmin(0), np.arange(len(rows))]
    chosen = chosen + _of_measuring(curve, chosen, n)
    value, wider = float(best[0].at(x)[0]), best[0].wider
    low, high = np.quantile(_bounded(curve, value + wider * (chosen - value)), [0.025, 0.975])
    return Expected(best[0].law.name, x, value, min(float(low), value), max(float(high), value))


class Compared:
    """`expected`, with its interval, beside `actual`, what was measured."""

    @property
    def error(self) -> float:
        return self.actual - self.expected.value

    @property
    def inside(self) -> bool:
        """Whether the value lies in the interval."""
        return self.expected.low <= self.actual <= self.expected.high


@dataclass(frozen=True)
class LeftOut(Compared):
    """The largest model as the smaller ones foretold it."""

    expected: Expected
    actual: float


def largest_left_out(curve: Curve, law: str | None = None) -> LeftOut | None:
    """Whether the largest model was predictable from the others; None where these are fewer than three."""
    smaller = curve.first(len(curve) - 1)
    if len(smaller) < 3 or (law and not any(fit.law.name == law for fit in fits(smaller))):
        return None
    told = expected(smaller, float(curve.x[-1]), int(curve.n[-1]) or None, law)
    return LeftOut(told, float(curve.values[-1]))


def _of_measuring(curve: Curve, values: np.ndarray, n: int | None) -> np.ndarray:
    """Noise that measuring such values on n items adds."""
    random = np.random.default_rng(1)
    count = float(n or curve.n[-1] or 0)
    if curve.metric.hits and count:
        share = np.clip(values, 0, 1)
        return random.binomial(int(count), share) / count - values
    error = float(np.sqrt(curve.noise[-1]))
    return random.normal(0, error * math.sqrt(curve.n[-1] / count) if count and curve.n[-1] else error, len(values))


def _length(curve: Curve) -> float:
    return float(np.ptp(curve.places))


def _bounded(curve: Curve, values: np.ndarray) -> np.ndarray:
    """No better than perfect; shares no worse than nothing."""
    metric = curve.metric
    if metric.best is None:
        return values
    if not metric.higher:
        return np.maximum(values, metric.best)
    low = 0.0 if metric.best == 1.0 else -np.inf
    return np.clip(values, low, metric.best)


def _towards(curve: Curve, law: Law, values: np.ndarray) -> np.ndarray:
    """What follows the law: the distance to perfect, or what is above chance."""
    if law.gap:
        return values if curve.metric.best is None else np.abs(curve.metric.best - values)
    return values - curve.chance if law.name == "logistic" and curve.metric.best == 1.0 else values


def _back(curve: Curve, law: Law, values: np.ndarray) -> np.ndarray:
    if law.gap and curve.metric.best is not None:
        values = curve.metric.best + (-1 if curve.metric.higher else 1) * values
    elif law.name == "logistic" and curve.metric.best == 1.0:
        values = values + curve.chance
    return _bounded(curve, values)


def _grid(curve: Curve, law: Law) -> np.ndarray:
    """The law's grid (G, T), and finer ones about its best place, so that the grid is no source of error."""
    length = _length(curve)
    grid = np.array(law.thetas(length), dtype=float)
    for scale in (1.0, 0.2, 0.04) if grid.shape[1] else ():
        place, _, _ = _best(curve, law, grid, curve.values[None])
        best = tuple(grid[place[0]])
        sides = [
            middle + scale * step * np.linspace(-1, 1, 11)
            for middle, step in zip(best, law.steps(best, length), strict=True)
        ]
        near = np.stack(np.meshgrid(*sides), -1).reshape(-1, len(best))
        grid = np.concatenate([grid, near])
    return grid


def _best(curve: Curve, law: Law, grid: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weighted least squares at every place of the grid: (B, M) -> the best place (B,), weights (B, P), misfit (B,)."""
    u = curve.places - curve.places[-1]
    y, root = _towards(curve, law, rows), 1 / np.sqrt(curve.noise)
    columns = np.stack([law.columns(u, tuple(theta)) for theta in grid]) * root[:, None]  # (G, M, P)
    inverse = np.linalg.pinv(columns, rcond=1e-9)  # (G, P, M)
    weights = np.einsum("gpm,bm->gbp", inverse, y * root)
    off = np.einsum("gmp,gbp->gbm", columns, weights) - y * root
    misfit = (off**2).sum(2)
    place = misfit.argmin(0)
    each = np.arange(len(rows))
    return place, weights[place, each], misfit[place, each]
