"""Which words of a scene's caption name which sprites: exact material for evaluating where a model looks."""

import re
from typing import NamedTuple

from alignlab.data.emoji.concepts import plural
from alignlab.data.emoji.scenes import Scene


class Phrase(NamedTuple):
    """Characters [start, end) of a caption, and the boxes of what they name."""

    start: int
    end: int
    boxes: tuple[tuple[int, int, int, int], ...]  # left, top, right, bottom in pixels, right and bottom exclusive


def grounded_phrases(scene: Scene) -> list[Phrase]:
    """The nouns of a caption in their order, each with the boxes of its sprites: "two bees" has two."""
    boxes: dict[str, list[tuple[int, int, int, int]]] = {}
    for sprite in scene.sprites:
        boxes.setdefault(sprite.concept, []).append(sprite.box)
    caption, phrases = scene.caption, []
    for name in sorted(boxes, key=len, reverse=True):  # "police car" before "car"
        noun = name if len(boxes[name]) == 1 else plural(name)
        match = re.search(rf"\b{re.escape(noun)}\b", caption)
        if match:
            phrases.append(Phrase(*match.span(), tuple(boxes[name])))
            blank = " " * (match.end() - match.start())
            caption = caption[: match.start()] + blank + caption[match.end() :]
    return sorted(phrases)
