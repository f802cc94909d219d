"""A data source of one's own: put your pictures here."""

import random
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw

from alignlab.data.image_text.batches import Pair

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
SHAPES = ("circle", "square", "triangle", "bar")


class Shapes:
    """Coloured shapes, drawn as they are asked for; there is nothing to download.

    Args:
        image_size: height and width in pixels.
        num_train: pictures in an epoch; each is drawn anew from its number.
        seed: of places and sizes.
    """

    def __init__(self, image_size: int, num_train: int = 2000, seed: int = 0) -> None:
        self.image_size, self.num_train, self.seed = image_size, num_train, seed
        self.things = [(colour, shape) for colour in COLOURS for shape in SHAPES]

    def train_pair(self, serial: int) -> Pair:
        """Pair number `serial` = epoch x num_train + position; the last value is the thing's number: equal ones count
        as one.
        """
        index = random.Random(serial).randrange(len(self.things))
        return Pair(self._drawn(index, f"train {serial}"), self._caption(index), index)

    def num_pictures(self, split: str) -> int:
        return len(self.things)

    def picture(self, index: int, split: str) -> np.ndarray:
        """Held-out pictures, (H, W, 3) uint8: the same each time they are asked for."""
        return self._drawn(index, f"{split} {index}")

    def captions_of(self, index: int, split: str) -> list[str]:
        return [self._caption(index)]

    def vocabulary_texts(self) -> Iterator[str]:
        """What a tokenizer is trained on."""
        return map(self._caption, range(len(self.things)))

    def held_out_texts(self) -> Iterator[str]:
        return iter(())

    def zero_shot_pictures(self) -> dict:
        """Labelled pictures to classify, if there are any."""
        return {}

    def foil_sets(self, max_rows: int | None = None) -> dict:
        """Captions that are false by one fact, if there are any."""
        return {}

    def _caption(self, index: int) -> str:
        colour, shape = self.things[index]
        return f"a {colour} {shape}"

    def _drawn(self, index: int, name: str) -> np.ndarray:
        draw, (colour, shape) = random.Random(f"{self.seed} {name}"), self.things[index]
        side = int(self.image_size * draw.uniform(0.3, 0.6))
        left, top = draw.randrange(self.image_size - side), draw.randrange(self.image_size - side)
        right, bottom = left + side, top + side
        picture = Image.new("RGB", (self.image_size, self.image_size), "white")
        brush = ImageDraw.Draw(picture)
        if shape == "circle":
            brush.ellipse((left, top, right, bottom), fill=colour)
        elif shape == "triangle":
            brush.polygon(((left, bottom), (right, bottom), ((left + right) / 2, top)), fill=colour)
        else:
            brush.rectangle((left, top, right, bottom if shape == "square" else top + side // 4), fill=colour)
        return np.asarray(picture)
