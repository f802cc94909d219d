"""Grokking: a run that knows its training data by heart long before it does well on others (arXiv:2201.02177)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from alignlab.studies.reading.tables import Curve, Logged

KNOWN = 0.95  # of the way from a metric's start to perfect: the training data are known
RISEN = 0.9  # the same of the way to the held-out metric's best, of itself
LATE = 0.5  # share of that way that the held-out metric may have made when the training data are known
TIMES = 3.0  # as many steps at least between the two
STARTED = 0.2  # a held-out metric that has made less of the way to perfect hasn't risen yet
NAMES = (("train/accuracy", "val/accuracy"), ("train/token_accuracy", "val/token_accuracy"), ("train/loss", "val/loss"))
NORMS = ("train/weight_norm", "weight_norm", "train/parameter_norm")

State = Literal["grokked", "memorised", "neither"]


@dataclass(frozen=True)
class Grokking:
    """What a run's two curves say.

    Attributes:
        state: `grokked`; `memorised`: the training data are known and the others not yet, or never; `neither`.
        train, validation: names of the curves.
        known_at: step at which the training data are known.
        risen_at: step at which the held-out metric has made its way.
        norm_falls: whether the weights' norm still falls at the end; None where it wasn't logged.
    """

    state: State
    train: str
    validation: str
    known_at: float | None = None
    risen_at: float | None = None
    norm_falls: bool | None = None

    @property
    def wants_steps(self) -> bool:
        """Whether nobody should shorten such a run, though its held-out metric stands still for long."""
        return self.state == "grokked" or (self.state == "memorised" and self.norm_falls is not False)

    def text(self) -> str:
        """A line for people."""
        if self.state == "grokked":
            times = self.risen_at / max(self.known_at, 1.0)
            return (
                f"Grokking: {self.train} is done at step {self.known_at:g}, {self.validation} at {self.risen_at:g}, "
                f"{times:.3g} times as late. A run that had been stopped in between would have shown nothing."
            )
        if self.state == "memorised":
            norm = {True: ", and the weights' norm still falls", False: ", and the weights' norm is still"}
            more = norm.get(self.norm_falls, "")
            return (
                f"The training data are known by heart since step {self.known_at:g} and {self.validation} hasn't risen"
                f"{more}: more steps may bring it (grokking), with weight decay above all; they needn't."
            )
        return f"No grokking: {self.validation} goes along with {self.train}."


def grokking(told: Logged, train: str | None = None, validation: str | None = None) -> Grokking | None:
    """What a run's logged metrics say; None where there are no two curves to compare.

    Args:
        train, validation: names of the curves; None: accuracy, else loss.
    """
    pairs = [(train, validation)] if train and validation else NAMES
    for first, second in pairs:
        if len(told.curves.get(first, ())) > 3 and len(told.curves.get(second, ())) > 3:
            return _compared(told, first, second)
    return None


def _compared(told: Logged, train: str, validation: str) -> Grokking:
    is_loss = "loss" in train
    seen, held = (_ways(told.curves[name], is_loss) for name in (train, validation))
    norm = next((told.curves[name] for name in NORMS if told.curves.get(name)), None)
    falls = None if norm is None else _falls(norm)
    known = next((step for step, way in seen if way >= KNOWN), None)
    if known is None or not held:
        return Grokking("neither", train, validation, norm_falls=falls)
    best = max(way for _, way in held)
    then = max((way for step, way in held if step <= known), default=0.0)
    if best < STARTED:
        state, risen = "memorised", None
    else:
        risen = next(step for step, way in held if way >= RISEN * best)
        state = "grokked" if risen >= TIMES * max(known, 1.0) and then <= LATE * best else "neither"
    return Grokking(state, train, validation, known, risen, falls)


def _ways(curve: Curve, is_loss: bool) -> list[tuple[float, float]]:
    """Step -> share of the way from the first value to perfect, by running medians of three."""
    points = [(step, value) for step, value in curve if np.isfinite(value)]
    if not points:
        return []
    values = np.array([value for _, value in points])
    calm = np.array([np.median(values[max(0, i - 1) : i + 2]) for i in range(len(values))])
    perfect, first = (0.0 if is_loss else 1.0), values[0]
    if abs(perfect - first) < 1e-9:
        return [(step, 1.0) for step, _ in points]
    ways = (calm - first) / (perfect - first)
    return [(step, float(way)) for (step, _), way in zip(points, ways, strict=True)]


def _falls(norm: Curve) -> bool:
    """Whether the last quarter lies below the one before by more than a hundredth."""
    values = np.array([value for _, value in norm if np.isfinite(value)])
    quarter = max(1, len(values) // 4)
    return bool(values[-quarter:].mean() < 0.99 * values[-2 * quarter : -quarter].mean())
