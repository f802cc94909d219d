"""Held-out scenes with their near misses, and families whose members differ in where things are alone."""

from collections.abc import Iterator
from itertools import islice

from alignlab.data.emoji.captions import OPPOSITE
from alignlab.data.emoji.near_misses import FACTS, NearMisses
from alignlab.data.emoji.scenes import Scene

_PURPOSE = 16  # of random numbers, and those after it
_TRIES = 20  # scenes looked at for one that fits
_STRAIGHT = 0.3  # largest distance across / distance along the axis, so that nothing above is also a bit to the left


def foil_rows(families: NearMisses, fact: str, number: int) -> list[tuple[Scene, Scene]]:
    """Held-out scenes, each with its near miss by one fact, in random order within a row; none where the scenes never
    tell the fact. Every other fact of `NearMisses` is the same in both, so the row needs this one.
    """
    return list(islice(_rows(families, fact, number), number))


def _rows(families: NearMisses, fact: str, number: int) -> Iterator[tuple[Scene, Scene]]:
    scenes = families.scenes
    for index in range(_TRIES * (number + 10)):
        draw = scenes.draws(index, "val", _PURPOSE + FACTS.index(fact))
        scene = scenes.scene(index, "val")
        if fact == "sizes":
            scene = families.sized(scene, draw)
        if fact == "colours":
            scene = families.coloured(scene)
        changed = families.change(scene, fact, draw)
        if changed is not None:
            yield (scene, changed) if draw() < 0.5 else (changed, scene)


def arrangements(families: NearMisses, number: int) -> list[Scene]:
    """Pictures of `number` held-out pairs of things, each in four arrangements one after the other: left, right,
    above, below. What knows only which things there are finds the right one of the four by chance.
    """
    scenes: list[Scene] = []
    pairs: set[frozenset[str]] = set()
    for index in range(len(families.scenes.combinations.sets)):
        scene = families.scenes.scene(index, "val")
        pair = frozenset(sprite.concept for sprite in scene.sprites)
        if len(scene.sprites) != 2 or scene.statement.relation not in OPPOSITE or pair in pairs:
            continue
        if len(pairs) == number:
            break
        if _is_straight(scene):
            pairs.add(pair)
            upright = families.transposed(scene)
            scenes += [scene, families.turned(scene), upright, families.turned(upright)]
    return scenes


def _is_straight(scene: Scene) -> bool:
    (left, top, right, bottom), (left_, top_, right_, bottom_) = (sprite.box for sprite in scene.sprites)
    across, down = abs(left + right - left_ - right_), abs(top + bottom - top_ - bottom_)
    return min(across, down) <= _STRAIGHT * max(across, down)
