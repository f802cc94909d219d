"""Scenes of two or three emoji on a coloured background, with captions that tell what is where.

Scene `index` of a split is a function of (seed, split, index) alone: any process can make any scene, in any order, and
everything that is in the picture is known exactly. Scenes of the split "val" consist of combinations of concepts that
never meet in training, and don't depend on the seed.
"""

import random
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from alignlab.data.emoji.backgrounds import COLOUR_NAMES, NUM_TEXTURES, paint_background
from alignlab.data.emoji.captions import OPPOSITE, Draw, Statement, statement
from alignlab.data.emoji.combinations import Combinations
from alignlab.data.emoji.concepts import Concept, concepts
from alignlab.data.emoji.drawings import PatchBank, paste
from alignlab.data.emoji.layouts import Place, row, two_sides

ROTATIONS = (-20.0, -10.0, 0.0, 10.0, 20.0)  # degrees, counter-clockwise
_SPLITS = {"train": 0, "val": 1}


class Sprite(NamedTuple):
    """One emoji in a scene."""

    concept: str
    drawing: str  # code points of the Twemoji picture
    box: tuple[int, int, int, int]  # left, top, right, bottom in pixels, right and bottom exclusive
    scale: float  # longer side / side of the picture
    rotation: float  # degrees, counter-clockwise


class Relation(NamedTuple):
    """`subject` (a sprite's index) is `name` its `objects`: "left of", "right of", "above", "below" one, or "between"
    two.
    """

    subject: int
    name: str
    objects: tuple[int, ...]


class Scene(NamedTuple):
    """Everything that is in a picture."""

    sprites: tuple[Sprite, ...]
    background: str  # name of the colour
    statement: Statement
    relations: tuple[Relation, ...]  # as arranged; their opposites hold too
    texture: int
    shade: tuple[float, float, float]

    @property
    def caption(self) -> str:
        """What the statement says, in a sentence."""
        return self.statement.caption


class EmojiScenes:
    """All scenes of one size.

    Args:
        image_size: height and width in pixels.
        seed: of the training scenes.
        max_sprites: 2 or 3.
        held_out_fraction: share of the pairs of concepts that are kept for the split "val".
    """

    def __init__(
        self, image_size: int = 48, seed: int = 0, max_sprites: int = 3, held_out_fraction: float = 0.1
    ) -> None:
        if image_size < 16:
            raise ValueError(f"image_size is {image_size}; scenes need at least 16 pixels")
        if max_sprites not in (2, 3):
            raise ValueError(f"max_sprites is {max_sprites}; it must be 2 or 3")
        if not 0 < held_out_fraction <= 0.5:
            raise ValueError(f"held_out_fraction is {held_out_fraction}; it must be above 0 and at most 0.5")
        self.image_size, self.seed, self.max_sprites = image_size, seed, max_sprites
        self.concepts: tuple[Concept, ...] = concepts()
        self.combinations = Combinations(tuple(c.name for c in self.concepts), held_out_fraction, max_sprites)
        self._bank = PatchBank()

    @property
    def num_val(self) -> int:
        """The largest number of held-out scenes whose captions all name different combinations."""
        return len(self.combinations.sets)

    def scene(self, index: int, split: str = "train") -> Scene:
        """Scene number `index` of "train" or "val"; beyond `num_val` the combinations of "val" repeat in new
        arrangements.
        """
        draw = self.draws(index, split)
        places, relations, told = self._arrange(draw, self._concepts_of(draw, index, split))
        texture = int(draw() * NUM_TEXTURES)
        shade = (2 * draw() - 1, 2 * draw() - 1, 2 * draw() - 1)
        sprites = tuple(self._draw_sprite(place, draw) for place in places)
        return Scene(sprites, told.colour, told, relations, texture, shade)

    def caption(self, index: int, split: str = "train") -> str:
        """The caption alone, without making any pixel."""
        draw = self.draws(index, split)
        return self._arrange(draw, self._concepts_of(draw, index, split))[2].caption

    def captions(self, number: int) -> Iterator[str]:
        """The first training captions."""
        return (self.caption(index) for index in range(number))

    def render(self, scene: Scene, canvas: np.ndarray | None = None) -> np.ndarray:
        """The picture (H, W, 3) uint8, written into `canvas` if there is one."""
        if canvas is None:
            canvas = np.empty((self.image_size, self.image_size, 3), dtype=np.uint8)
        paint_background(canvas, scene.background, scene.texture, scene.shade)
        for sprite in scene.sprites:
            patch = self._bank.patch(sprite.drawing, round(sprite.scale * self.image_size), sprite.rotation)
            paste(canvas, patch, sprite.box[0], sprite.box[1])
        return canvas

    def draws(self, index: int, split: str = "train", purpose: int = 0) -> Draw:
        """Random numbers of a scene; those of another `purpose` are others."""
        if split not in _SPLITS:
            raise ValueError(f"there is no split {split!r} of emoji scenes, only {sorted(_SPLITS)}")
        if index < 0:
            raise ValueError(f"a scene's index must not be negative: {index}")
        seed = self.seed if split == "train" else 0
        # Only random() is used: its sequence is the same in every version of Python.
        number = (((seed << 48) + index) << 1) + _SPLITS[split]
        return random.Random(number + (purpose << 128)).random

    def _concepts_of(self, draw: Draw, index: int, split: str) -> list[int]:
        """Different concepts of the scene: two, or three for a scene of three different things."""
        if split == "val":
            sets = self.combinations.sets
            members = list(sets[index % len(sets)])
            for position in range(len(members) - 1, 0, -1):  # Fisher-Yates
                other = int(draw() * (position + 1))
                members[position], members[other] = members[other], members[position]
            return members
        number = 3 if self.max_sprites == 3 and draw() < 0.25 else 2
        members, held_out = [], self.combinations.held_out
        while len(members) < number:
            candidate = int(draw() * len(self.concepts))
            if candidate not in members and not any(held_out(candidate, member) for member in members):
                members.append(candidate)
        return members

    def _arrange(self, draw: Draw, members: list[int]) -> tuple[list[Place], tuple[Relation, ...], Statement]:
        upright = draw() < 0.5  # the relation's axis is the vertical one
        before, after = ("above", "below") if upright else ("left of", "right of")
        colour = COLOUR_NAMES[int(draw() * len(COLOUR_NAMES))]
        names = [self.concepts[member].name for member in members]
        if len(members) == 3 and draw() < 0.4:
            places = row(draw, members, upright)
            relations = (Relation(1, "between", (0, 2)), Relation(0, before, (1,)), Relation(1, before, (2,)))
            ends = [names[0], names[2]] if draw() < 0.5 else [names[2], names[0]]
            return places, relations, statement([names[1]], "between", ends, colour, draw)
        if len(members) == 3:
            group, single = members[:2], members[2]
        elif self.max_sprites == 3 and draw() < 0.25:
            group, single = [members[0], members[0]], members[1]
        else:
            group, single = [members[0]], members[1]
        places, group_first = two_sides(draw, group, single, upright)
        relation = before if group_first else after
        relations = tuple(Relation(i, relation, (len(group),)) for i in range(len(group)))
        group_names, single_name = [self.concepts[m].name for m in group], [self.concepts[single].name]
        if len(group) == 1 and not upright and draw() < 0.1:
            relation = "next to"
        if draw() < 0.5:
            told = statement(group_names, relation, single_name, colour, draw)
        else:
            told = statement(single_name, OPPOSITE.get(relation, relation), group_names, colour, draw)
        return places, relations, told

    def sprite(self, place: Place, drawing: str, rotation: float) -> Sprite:
        """A drawing of the place's concept, moved into the picture where it would stick out."""
        size = self.image_size
        height, width = self._bank.patch(drawing, round(place.scale * size), rotation).keep.shape[:2]
        left = min(max(round(place.x * size - width / 2), 0), size - width)
        top = min(max(round(place.y * size - height / 2), 0), size - height)
        name = self.concepts[place.concept].name
        return Sprite(name, drawing, (left, top, left + width, top + height), place.scale, rotation)

    def _draw_sprite(self, place: Place, draw: Draw) -> Sprite:
        drawings = self.concepts[place.concept].drawings
        drawing = drawings[int(draw() * len(drawings))]
        return self.sprite(place, drawing, ROTATIONS[int(draw() * len(ROTATIONS))])
