"""Figures of curves over sizes: values with intervals, the floor, the law, what was foretold of the largest model."""

import numpy as np

from alignlab.reports.page import Figure
from alignlab.scaling.composite import Composite
from alignlab.scaling.curve import Curve
from alignlab.scaling.findings import Found
from alignlab.studies.showing.figures import BAR, OTHER, SOFT, Axes

POINTS = 60  # of a law's line


def curve(found: Found, title: str) -> Figure:
    """One metric over sizes."""
    own = found.curve
    low, high = own.intervals
    axes = Axes(_across(own), _extent(found), x_log=True, x_title=title)
    if own.metric.hits:
        axes.line(list(zip(own.x, own.floor, strict=True)), SOFT, 1.2, "2 4")
        axes.line(list(zip(own.x, own.ceiling_of_none, strict=True)), SOFT, 1.2, "6 4")
    if own.chance:
        axes.line([(own.x[0], own.chance), (own.x[-1], own.chance)], SOFT, 1.0)
    if found.fits:
        places = np.geomspace(own.x[0], own.x[-1], POINTS)
        axes.line(list(zip(places, found.fits[0].at(places), strict=True)), BAR, 1.4)
    if found.left_out is not None:
        told = found.left_out.expected
        axes.line([(told.x, told.low), (told.x, told.high)], BAR, 6.0)
    for x, bottom, value, top in zip(own.x, low, own.values, high, strict=True):
        axes.box(float(x), float(bottom), float(value), float(top))
    return Figure(axes.picture(), _caption(found))


def parts(told: Composite, title: str) -> Figure:
    """The whole (dots) against the product of its parts (line, with its interval)."""
    values = np.concatenate([told.low, told.high, told.whole])
    axes = Axes((float(told.x[0]), float(told.x[-1])), _padded(values), x_log=True, x_title=title)
    axes.line(list(zip(told.x, told.product, strict=True)), BAR, 1.6)
    for row in (told.low, told.high):
        axes.line(list(zip(told.x, row, strict=True)), BAR, 1.0, "4 4")
    axes.dots(list(zip(told.x, told.whole, strict=True)), OTHER)
    return Figure(axes.picture(), f"The whole (dots) and the product of {', '.join(told.parts)} (line). {told.text()}")


def _caption(found: Found) -> str:
    own = found.curve
    way = "up is better" if own.metric.higher else "down is better"
    told = [f"{own.metric.name} ({way}): {found.shape.name.replace('_', ' ')}"]
    told[0] += f", {found.shape.sure:.0%} of the resamples." if found.shape.sure else f" ({found.shape.why})."
    if own.metric.hits:
        told.append("Dotted: 1 / n, the least that can be seen; dashed: what a model without a hit may have.")
    if own.chance:
        told.append(f"Chance is {own.chance:.3g}.")
    if found.fits:
        law = found.fits[0].law.text
        told.append(f"The line is the law {law}." if found.fits[0].holds else f"No law holds; the nearest is {law}.")
    if found.left_out is not None:
        where = "inside" if found.left_out.inside else "outside"
        told.append(f"The bar is what the smaller models foretell of the largest, which lies {where}.")
    return " ".join(told)


def _across(own: Curve) -> tuple[float, float]:
    return float(own.x[0]), float(own.x[-1])


def _extent(found: Found) -> tuple[float, float]:
    low, high = found.curve.intervals
    values = [*low, *high]
    if found.left_out is not None:
        values += [found.left_out.expected.low, found.left_out.expected.high]
    return _padded(np.array(values))


def _padded(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    pad = 0.04 * (high - low) or abs(high) * 0.05 or 1.0
    return (low if low == 0 else low - pad), high + pad
