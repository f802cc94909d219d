"""Figures of a study as inline SVG, in the page's colours: axis plots, isolation plots, curves, the best of n."""

import math
from collections.abc import Sequence

from markupsafe import Markup

WIDE, HIGH = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 10, 12, 34
BAR, OTHER, SOFT, LINE = "var(--bar)", "var(--other)", "var(--soft)", "var(--line)"


class Axes:
    """A plot with numbers at its sides.

    Args:
        x, y: lowest and highest value.
        x_log: whether x is logarithmic.
        x_names: written instead of numbers, one at each whole number from 0.
    """

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        x_log: bool = False,
        x_names: Sequence[str] | None = None,
        x_title: str = "",
    ) -> None:
        self._log = x_log
        self._x, self._y = _spread(*map(self._scaled, x)), _spread(*y)
        self._parts: list[Markup] = []
        self._sides(x, x_names, x_title)

    def dots(self, points: Sequence[tuple[float, float]], colour: str = BAR, titles: Sequence[str] = ()) -> None:
        """Circles, with what is told when the mouse is over them."""
        for place, (x, y) in enumerate(points):
            self._parts.append(
                Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3.5" fill="{}" fill-opacity="0.75">{}</circle>').format(
                    self._across(x), self._up(y), colour, _title(titles, place)
                )
            )

    def crosses(self, places: Sequence[float], titles: Sequence[str] = ()) -> None:
        """What has no value, along the top."""
        for place, x in enumerate(places):
            a, b = self._across(x), TOP + 5
            shape = f"M{a - 4:.1f} {b - 4}l8 8m0 -8l-8 8"
            self._parts.append(
                Markup('<path d="{}" stroke="{}" stroke-width="2" fill="none">{}</path>').format(
                    shape, OTHER, _title(titles, place)
                )
            )

    def line(
        self, points: Sequence[tuple[float, float]], colour: str = BAR, width: float = 1.8, dash: str = ""
    ) -> None:
        """A line through points."""
        path = "M" + "L".join(f"{self._across(x):.1f} {self._up(y):.1f}" for x, y in points)
        self._parts.append(
            Markup('<path d="{}" stroke="{}" stroke-width="{}" stroke-dasharray="{}" fill="none"/>').format(
                path, colour, width, dash
            )
        )

    def box(self, x: float, low: float, middle: float, high: float) -> None:
        """An interval with its middle."""
        a = self._across(x)
        shape = f"M{a - 7:.1f} {self._up(low):.1f}h14m-7 0V{self._up(high):.1f}m-7 0h14"
        self._parts.append(Markup('<path d="{}" stroke="{}" fill="none" stroke-width="1.5"/>').format(shape, SOFT))
        self.dots([(x, middle)], OTHER)

    def bars(self, counts: Sequence[int]) -> None:
        """A histogram over the whole of x."""
        width = (WIDE - LEFT - RIGHT) / len(counts)
        for place, count in enumerate(counts):
            top = self._up(count)
            self._parts.append(
                Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill="{}"/>').format(
                    LEFT + place * width + 1, top, width - 2, HIGH - BOTTOM - top, BAR
                )
            )

    def picture(self) -> Markup:
        """The figure."""
        size = Markup('<svg viewBox="0 0 {} {}" style="max-width:620px" role="img">').format(WIDE, HIGH)
        return Markup("").join([size, *self._parts, Markup("</svg>")])

    def _sides(self, x: tuple[float, float], names: Sequence[str] | None, title: str) -> None:
        text = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}" style="font-size:11px;fill:{}">{}</text>')
        rule = Markup('<line x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}" stroke="{}"/>')
        for step in range(5):
            y = self._y[0] + step / 4 * (self._y[1] - self._y[0])
            self._parts.append(rule.format(LEFT, WIDE - RIGHT, self._up(y), self._up(y), LINE))
            self._parts.append(text.format(LEFT - 5, self._up(y) + 4, "end", "var(--soft)", short(y)))
        if names is not None:
            ticks = [(float(place), name) for place, name in enumerate(names)]
        else:
            ticks = [(value, short(value)) for value in _ticks(*x, self._log)]
        for place, (value, name) in enumerate(ticks):
            anchor = "end" if place == len(ticks) - 1 and names is None else "middle"
            name = name if len(name) < 15 else name[:13] + "…"
            self._parts.append(text.format(self._across(value), HIGH - BOTTOM + 15, anchor, "var(--soft)", name))
        self._parts.append(text.format((LEFT + WIDE) / 2, HIGH - 4, "middle", "var(--ink)", title))

    def _scaled(self, value: float) -> float:
        return math.log(value) if self._log else value

    def _across(self, value: float) -> float:
        low, high = self._x
        return LEFT + 6 + (self._scaled(value) - low) / (high - low) * (WIDE - LEFT - RIGHT - 12)

    def _up(self, value: float) -> float:
        low, high = self._y
        return HIGH - BOTTOM - (min(max(value, low), high) - low) / (high - low) * (HIGH - TOP - BOTTOM)


def robust(values: Sequence[float], mode: str) -> tuple[float, float]:
    """The extent that shows the good values: a few far ones would flatten all others."""
    ordered = sorted(values, reverse=mode == "max")
    best, middle, worst = ordered[0], ordered[len(ordered) // 2], ordered[-1]
    far = middle + 2.5 * (middle - best)
    worst = min(worst, far) if mode == "min" else max(worst, far)
    low, high = min(best, worst), max(best, worst)
    pad = 0.04 * (high - low) or abs(high) * 0.05 or 1.0
    return low - pad, high + pad


def short(value: float) -> str:
    """A number in few letters."""
    return f"{value:.3g}"


def _spread(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float, log: bool) -> list[float]:
    if not log:
        return [low + step / 4 * (high - low) for step in range(5)]
    powers = [10.0**e for e in range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)]
    if len(powers) < 2:
        return [low, math.sqrt(low * high), high]
    return powers[:: -(-len(powers) // 6)]


def _title(titles: Sequence[str], place: int) -> Markup:
    return Markup("<title>{}</title>").format(titles[place]) if place < len(titles) else Markup("")
