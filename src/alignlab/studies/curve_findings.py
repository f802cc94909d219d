"""What single runs' curves say: overfitting, noise, still improving, long done, a training loss that rises."""

from dataclasses import dataclass

import numpy as np

from alignlab.studies.reading.tables import Curve

NEEDED = 8  # points of a curve


@dataclass(frozen=True)
class Shape:
    """A curve in numbers; losses, so that smaller is better.

    Attributes:
        smooth: running means.
        noise: deviation of a point from its surroundings, in the later half.
        gain: from the first points to the best smooth one.
    """

    steps: np.ndarray
    smooth: np.ndarray
    noise: float
    gain: float

    @property
    def noise_of_means(self) -> float:
        return self.noise / np.sqrt(_width(len(self.smooth)))


def read(curve: Curve, sign: float = 1.0) -> Shape | None:
    """A curve's shape; None for one that is too short.

    Args:
        sign: -1 for a metric that is best where it is large.
    """
    points = [(step, sign * value) for step, value in curve if np.isfinite(value)]
    if len(points) < NEEDED:
        return None
    steps, values = np.array(points).T
    width = _width(len(values))
    kernel = np.ones(width)
    smooth = np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")
    late = values[len(values) // 2 :]
    bends = late[2:] - 2 * late[1:-1] + late[:-2]  # straight lines and slow curves vanish
    noise = 1.4826 * float(np.median(np.abs(bends))) / np.sqrt(6) if len(bends) > 2 else 0.0
    return Shape(steps, smooth, noise, float(values[0] - smooth.min()))


def findings_of(validation: Curve, train: Curve | None, mode: str) -> list[str]:
    """Codes of what a run's curves say.

    Args:
        validation: of the study's metric.
        train: of the training loss, if there is one.
        mode: of the metric, min or max.
    """
    shape, told = read(validation, 1.0 if mode == "min" else -1.0), []
    rises = train is not None and (loss := read(train)) is not None and _rise(loss) > 0
    if rises:
        told.append("train_loss_rising")
    if shape is None or shape.gain <= 0:
        return told
    if shape.noise > 0.1 * shape.gain:
        told.append("noisy")
    if _rise(shape) > 0 and not rises:
        told.append("overfitting")
    elif _still_improves(shape):
        told.append("still_improving")
    elif not told and _saturated(shape):  # noise and a rising loss hide what more steps would do
        told.append("saturated")
    return told


def best_place(curve: Curve, mode: str) -> float | None:
    """When a run was best, as a share of its steps."""
    points = [(step, value) for step, value in curve if np.isfinite(value)]
    if len(points) < 2 or points[-1][0] <= 0:
        return None
    best = (min if mode == "min" else max)(points, key=lambda point: point[1])
    return float(best[0] / points[-1][0])


def _rise(shape: Shape) -> float:
    """How far a curve ends above its best point of before, beyond what noise does; 0: it doesn't."""
    best = int(shape.smooth.argmin())
    rise = float(shape.smooth[-1] - shape.smooth[best])
    early = best < 0.85 * (len(shape.smooth) - 1)
    return rise if early and rise > max(4 * shape.noise_of_means, 0.1 * shape.gain) else 0.0


def _still_improves(shape: Shape) -> bool:
    """Whether the last quarter is a slope downwards that is worth something."""
    last = slice(-max(4, len(shape.smooth) // 4), None)
    steps, values = shape.steps[last], shape.smooth[last]
    span = steps[-1] - steps[0]
    slope = float(np.polyfit((steps - steps[0]) / span, values, 1)[0]) if span > 0 else 0.0
    return -slope > max(3 * shape.noise_of_means, 0.04 * shape.gain)


def _saturated(shape: Shape) -> bool:
    """Whether half of the steps would have done."""
    half = shape.smooth[len(shape.smooth) // 2 :]
    return float(half[0] - half.min()) < max(2 * shape.noise_of_means, 0.02 * shape.gain)


def _width(count: int) -> int:
    """Of the running mean: a tenth of the points, odd."""
    return max(3, count // 10) | 1
