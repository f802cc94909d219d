"""Where the things of a scene stand, before their pixels are known.

Lengths are in units of the picture's side. A relation's axis is the vertical one where `upright`; "along" runs along
it, "across" at right angles to it.
"""

from typing import NamedTuple

from alignlab.data.emoji.captions import Draw

SCALES = (0.35, 0.4, 0.45, 0.5, 0.55, 0.6)  # longer side of a sprite / side of the picture


class Place(NamedTuple):
    """Where a concept (its number) stands, how large; x and y of its centre."""

    concept: int
    scale: float
    x: float
    y: float


def _between(draw: Draw, low: float, high: float) -> float:
    return low + (high - low) * draw()


def _place(concept: int, scale: float, along: float, across: float, upright: bool) -> Place:
    return Place(concept, scale, across, along) if upright else Place(concept, scale, along, across)


def two_sides(draw: Draw, group: list[int], single: int, upright: bool) -> tuple[list[Place], bool]:
    """One or two things on one side and one thing on the other; second value: whether the group comes first along the
    axis.
    """
    limit = 5 if len(group) == 1 else 4
    scales = [SCALES[1 + int(draw() * (limit - 1 - len(group) // 2))] for _ in group]
    single_scale = SCALES[1 + int(draw() * 4)]
    while max(scales) + single_scale > 1.02:  # they may touch, and overlap by a corner
        single_scale = SCALES[SCALES.index(single_scale) - 1]
    group_first = draw() < 0.5
    slack = max(0.0, 1 - max(scales) - single_scale)
    single_along = 1 - single_scale / 2 - 0.5 * slack * draw()
    if len(group) == 1:
        alongs = [scales[0] / 2 + 0.5 * slack * draw()]
        acrosses = [_between(draw, scales[0] / 2, 1 - scales[0] / 2)]
        reach = 0.6 * (single_along - alongs[0])  # the relation's axis dominates: "left of" is never mostly "above"
        single_across = acrosses[0] + _between(draw, -reach, reach)
        single_across = min(max(single_across, single_scale / 2), 1 - single_scale / 2)
    else:
        alongs = [scale / 2 + 0.5 * slack * draw() for scale in scales]
        free = 1 - sum(scales)
        acrosses = [scales[0] / 2 + 0.5 * free * draw(), 1 - scales[1] / 2 - 0.5 * free * draw()]
        single_across = _between(draw, 0.4, 0.6)
    if not group_first:
        alongs, single_along = [1 - along for along in alongs], 1 - single_along
    places = [_place(*values, upright) for values in zip(group, scales, alongs, acrosses, strict=True)]
    return [*places, _place(single, single_scale, single_along, single_across, upright)], group_first


def row(draw: Draw, members: list[int], upright: bool) -> list[Place]:
    """Three things in a row along the axis, the middle one a little aside."""
    scale = SCALES[0]
    middle = _between(draw, 0.3, 0.7)
    places = []
    for member, along in zip(members, (scale / 2, 0.5, 1 - scale / 2), strict=True):
        places.append(_place(member, scale, along, middle + _between(draw, -0.1, 0.1), upright))
    return places


def big_and_small(draw: Draw, members: list[tuple[int, float]], upright: bool, first: bool) -> list[Place]:
    """Two things (concept, scale) side by side that hardly differ across; `first`: whether the first of them comes
    first along the axis.
    """
    scales = [scale for _, scale in members]
    slack = max(0.0, 1 - sum(scales))
    alongs = [scales[0] / 2 + 0.5 * slack * draw(), 1 - scales[1] / 2 - 0.5 * slack * draw()]
    if not first:
        alongs = [1 - along for along in alongs]
    middle = _between(draw, max(scales) / 2, 1 - max(scales) / 2)
    places = []
    for (concept, scale), along in zip(members, alongs, strict=True):
        across = min(max(middle + _between(draw, -0.1, 0.1), scale / 2), 1 - scale / 2)
        places.append(_place(concept, scale, along, across, upright))
    return places
