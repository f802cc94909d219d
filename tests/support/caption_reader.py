"""Reads a caption without the code that wrote it, and looks up in a scene's boxes whether it is true."""

import re

from alignlab.data.emoji.captions import PHRASES
from alignlab.data.emoji.concepts import plural
from alignlab.data.emoji.scenes import Scene

_WORDINGS = sorted(((p, name) for name, several in PHRASES.items() for p in several), key=lambda pair: -len(pair[0]))
_COLOURS = {
    "2764": "red", "1f499": "blue", "1f49a": "green", "1f9e1": "orange", "1f4d5": "red", "1f4d8": "blue", "1f4d7": "green",
}  # fmt: skip


def holds(relation: str, first: tuple, second: tuple, size: int, least: float = 0.15) -> bool:
    """Whether a relation is plain to see between the centres of two boxes."""
    across = (first[0] + first[2] - second[0] - second[2]) / 2
    down = (first[1] + first[3] - second[1] - second[3]) / 2
    distance = {"left of": -across, "right of": across, "above": -down, "below": down, "next to": abs(across)}[relation]
    return distance > least * size


def is_true(caption: str, scene: Scene, size: int) -> bool:
    """Whether everything that a caption says holds: the background, what there is and how many, and where."""
    ground = re.search(r"(?:on an? |, )(\w+) background", caption)
    if ground and ground[1] != scene.background:
        return False
    sentence = re.sub(r"^on an? \w+ background, |, \w+ background$| on an? \w+ background$", "", caption)
    phrase, relation = next((p, name) for p, name in _WORDINGS if f" {p} " in sentence)
    first, second = sentence.split(f" {phrase} ")
    subjects, objects = (_named(part, scene) for part in (re.sub(r" (is|are)$", "", first), second))
    if subjects is None or objects is None or sorted(subjects + objects) != list(range(len(scene.sprites))):
        return False
    boxes = [sprite.box for sprite in scene.sprites]
    if relation != "between":
        return all(holds(relation, boxes[s], boxes[o], size) for s in subjects for o in objects)
    (middle,), (one, other) = subjects, objects
    return any(
        holds(side, boxes[one], boxes[middle], size) and holds(side, boxes[middle], boxes[other], size)
        for side in ("left of", "right of", "above", "below")
    )


def _named(part: str, scene: Scene) -> list[int] | None:
    """Sprites that a noun phrase names; None if there are others than it says."""
    found = []
    for noun in part.split(" and "):
        article, name = noun.split(" ", 1)
        wanted = 2 if article == "two" else 1
        size, colour = None, None
        if name.split()[0] in ("big", "small"):
            size, name = name.split(" ", 1)
        if name.split()[0] in _COLOURS.values():
            colour, name = name.split(" ", 1)
        members = [i for i, s in enumerate(scene.sprites) if (plural(s.concept) if wanted == 2 else s.concept) == name]
        if (wanted == 1 and name == "fish") or name == "thumbs up":
            members = [i for i, s in enumerate(scene.sprites) if s.concept == name]
        if len(members) != wanted or (colour and _COLOURS[scene.sprites[members[0]].drawing] != colour):
            return None
        if size and size != ("big" if scene.sprites[members[0]].scale > 0.4 else "small"):
            return None
        found += members
    return found
