"""Curves as inline SVG, in the colours of the page."""

import math
from collections.abc import Container, Mapping, Sequence

from markupsafe import Markup

COLOURS = 8  # classes c0 to c7 of the stylesheet
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 360, 210, 44, 22, 8
MOST = 400  # points of a curve that are drawn


def lines(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str,
    own: Sequence[int] = (),
    dashed: Container[str] = (),
) -> Markup:
    """One picture of curves over steps, its legend below it; what isn't finite is left out.

    Args:
        curves: name -> steps and values.
        own: number of the colour of each curve; default: one after the other.
        dashed: names of curves that are drawn so.
    """
    points = {name: _thinned(_finite(*curve)) for name, curve in curves.items()}
    numbers = dict(zip(points, own or range(len(points)), strict=True))
    points = {name: curve for name, curve in points.items() if curve}
    if not points:
        return Markup("")
    xs = [x for curve in points.values() for x, _ in curve]
    ys = [y for curve in points.values() for _, y in curve]
    right, (low, high) = max(max(xs), 1.0), _span(ys)
    parts, legend = [], []
    for tick in _ticks(low, high):
        y = _y(tick, low, high)
        parts.append(
            Markup(
                '<line class="rule" x1="{l}" x2="{w}" y1="{y:.1f}" y2="{y:.1f}"/><text x="{t}" y="{b:.1f}">{s}</text>'
            ).format(l=_LEFT, w=_WIDTH, y=y, t=0, b=y + 4, s=f"{tick:.3g}")
        )
    for x, anchor in ((0.0, "start"), (right, "end")):
        parts.append(
            Markup('<text x="{x:.1f}" y="{y}" text-anchor="{a}">{s}</text>').format(
                x=_x(x, right), y=_HEIGHT - 6, a=anchor, s=f"step {x:g}" if x == 0 else f"{x:g}"
            )
        )
    for name, curve in points.items():
        colour, way = numbers[name] % COLOURS, " dashed" if name in dashed else ""
        path = " ".join(f"{_x(x, right):.1f},{_y(y, low, high):.1f}" for x, y in curve)
        if len(curve) == 1:
            x, y = path.split(",")
            parts.append(Markup('<circle class="c{c}" cx="{x}" cy="{y}" r="4"/>').format(c=colour, x=x, y=y))
        else:
            parts.append(Markup('<polyline class="c{c}{w}" points="{p}"/>').format(c=colour, w=way, p=path))
        legend.append(
            Markup('<span><i class="c{c}{w}"></i><span>{name} <b>{last:.4g}</b></span></span>').format(
                c=colour, w=way, name=name, last=curve[-1][1]
            )
        )
    return Markup(
        '<div class="lines"><b>{title}</b><svg viewBox="0 0 {w} {h}" role="img" aria-label="{title}">{parts}</svg>'
        '<p class="legend">{legend}</p></div>'
    ).format(title=title, w=_WIDTH, h=_HEIGHT, parts=Markup("").join(parts), legend=Markup(" ").join(legend))


def _finite(steps: Sequence[float], values: Sequence[float]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in zip(steps, values, strict=True) if math.isfinite(y)]


def _thinned(curve: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Every n-th point and the last one."""
    step = -(-len(curve) // MOST)
    return curve if step <= 1 else [*curve[:-1:step], curve[-1]]


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or abs(high) * 0.1 or 1.0
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers between the ends."""
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(n for n in (1, 2, 2.5, 5, 10) if n * power >= rough)
    first = math.ceil(low / step)
    return [round(step * n, 12) for n in range(first, math.floor(high / step) + 1)]


def _x(x: float, right: float) -> float:
    return _LEFT + (_WIDTH - _LEFT) * x / right


def _y(y: float, low: float, high: float) -> float:
    return _TOP + (_HEIGHT - _BOTTOM - _TOP) * (high - y) / (high - low)
