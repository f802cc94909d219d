"""All that is said of a ladder: for every task its curves with shapes and laws, and a verdict."""

import math
from dataclasses import dataclass
from typing import Any

from alignlab.scaling.breakthrough import Breakthrough, breakthrough
from alignlab.scaling.composite import Composite, composite
from alignlab.scaling.curve import Curve
from alignlab.scaling.fits import Fit, LeftOut, fits, largest_left_out
from alignlab.scaling.flips import Flips, flips
from alignlab.scaling.reading.ladder import Ladder
from alignlab.scaling.shapes import Shape, shape
from alignlab.scaling.verdict import Verdict, verdict


@dataclass(frozen=True)
class Found:
    """A curve with all that was read from it."""

    curve: Curve
    shape: Shape
    fits: list[Fit]
    left_out: LeftOut | None
    breakthrough: Breakthrough | None


@dataclass(frozen=True)
class TaskFound:
    """A task's curves and what they say together."""

    task: str
    curves: list[Found]
    verdict: Verdict
    composite: Composite | None
    flips: Flips | None = None


def findings(ladder: Ladder) -> list[TaskFound]:
    """What is said of each task."""
    told = []
    for task in ladder.tasks:
        curves = ladder.of(task)
        found = [
            Found(c, shape(c), fits(c) if len(c) > 2 else [], largest_left_out(c), breakthrough(c)) for c in curves
        ]
        own = [each for each in found if not each.curve.metric.name.startswith("part:")] or found
        said = verdict([(each.curve, each.shape) for each in own])
        told.append(TaskFound(task, found, said, composite(curves), flips(curves)))
    return told


def as_json(ladder: Ladder, told: list[TaskFound]) -> dict[str, Any]:
    """report.json."""
    return {
        "axis": ladder.title,
        "models": [{"name": name, "x": x} for name, x in ladder.models],
        "problems": ladder.problems,
        "tasks": [_task(each) for each in told],
    }


def _task(told: TaskFound) -> dict[str, Any]:
    parts = told.composite
    return {
        "task": told.task,
        "verdict": told.verdict.code,
        "text": told.verdict.text,
        "next": list(told.verdict.then),
        "curves": [_curve(each) for each in told.curves],
        "composite": None
        if parts is None
        else {
            "parts": list(parts.parts),
            "product": _list(parts.product),
            "whole": _list(parts.whole),
            "explains": parts.explains,
        },
        "flips": None if told.flips is None else told.flips.as_json(),
    }


def _curve(found: Found) -> dict[str, Any]:
    curve, left = found.curve, found.left_out
    low, high = curve.intervals
    told = {
        "metric": curve.metric.name,
        "higher_is_better": curve.metric.higher,
        "continuous": curve.metric.continuous,
        "x": _list(curve.x),
        "value": _list(curve.values),
        "low": _list(low),
        "high": _list(high),
        "n": [int(n) for n in curve.n],
        "floor": None if curve.floor is None else _list(curve.floor),
        "models": list(curve.names),
        "shape": found.shape.name,
        "support": {name: round(share, 4) for name, share in found.shape.support.items()},
        "why": found.shape.why,
        "fits": [fit.numbers() for fit in found.fits],
    }
    if left is not None:
        e = left.expected
        told["largest_left_out"] = {
            "law": e.law,
            "expected": e.value,
            "low": e.low,
            "high": e.high,
            "actual": left.actual,
            "inside": left.inside,
        }
    if (both := found.breakthrough) is not None:
        told["linearity"] = _finite(both.linearity)
        told["linearity_interval"] = [_finite(each) for each in both.linearity_interval]
        told["breakthroughness"] = _finite(both.breakthroughness)
        told["breakthroughness_interval"] = [_finite(each) for each in both.breakthroughness_interval]
    return told


def _list(values: Any) -> list[float]:
    return [float(value) for value in values]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
