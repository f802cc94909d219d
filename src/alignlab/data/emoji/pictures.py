"""Single emoji with their names: one picture, several names, in many languages; held out by concept.

All gender, skin-tone and hair variants of a concept lie on one side of the split. In training the drawing is shifted,
scaled, turned and laid on a random background; held-out pictures are fixed.
"""

import random
from collections.abc import Iterator

import numpy as np

from alignlab.data.emoji.backgrounds import COLOUR_NAMES, NUM_TEXTURES, paint_background
from alignlab.data.emoji.drawings import PatchBank, paste
from alignlab.data.emoji.names import is_held_out, named_drawings
from alignlab.data.image_text.batches import FoilSet, Pair, ZeroShotPictures

# Captions of training and prompts of classification; other languages use the bare name.
TEMPLATES = {"en": ("{}", "a picture of {}", "an emoji of {}", "the {} emoji")}
_ROTATIONS = tuple(range(-20, 21, 5))  # degrees


class EmojiPairs:
    """The source behind `data=emoji`.

    Args:
        image_size: height and width in pixels.
        language: of the names.
        seed: of order, names, places and backgrounds in training.
        held_out_share: share of the concepts that are never trained on.
    """

    def __init__(self, image_size: int, language: str = "en", seed: int = 0, held_out_share: float = 0.12) -> None:
        if not 0 < held_out_share < 1:
            raise ValueError(f"held_out_share is {held_out_share}; it must lie between 0 and 1")
        drawings = named_drawings(language)
        self.image_size, self.seed = image_size, seed
        self.templates = TEMPLATES.get(language, ("{}",))
        self.train = [d for d in drawings if not is_held_out(d.concept, held_out_share)]
        self.held_out = [d for d in drawings if is_held_out(d.concept, held_out_share)]
        if not self.train or not self.held_out:
            raise ValueError(f"held_out_share is {held_out_share}, which leaves one side of the split empty")
        first = {d.concept: d for d in reversed(self.held_out)}
        self.val = [
            d for d in self.held_out if first[d.concept] is d
        ]  # one drawing a concept: no caption fits two pictures
        self.num_train = len(self.train)
        self._bank = PatchBank()
        self._order = (-1, np.empty(0))  # epoch and its permutation

    def train_pair(self, serial: int) -> Pair:
        """Every training drawing once an epoch, in a new order, under one of its names."""
        epoch, position = divmod(serial, self.num_train)
        if self._order[0] != epoch:
            self._order = (epoch, np.random.Generator(np.random.PCG64((self.seed, epoch))).permutation(self.num_train))
        index = int(self._order[1][position])
        draw = random.Random((self.seed << 48) + serial).random
        named = self.train[index]
        name = named.names[int(draw() * len(named.names))]
        template = self.templates[int(draw() * len(self.templates))]
        scale, rotation = 0.6 + 0.35 * draw(), _ROTATIONS[int(draw() * len(_ROTATIONS))]
        return Pair(self._compose(named.drawing, scale, rotation, draw), template.format(name), index)

    def num_pictures(self, split: str) -> int:
        return len(self._split(split))

    def picture(self, index: int, split: str) -> np.ndarray:
        """The drawing in the middle of a background that depends on the index alone."""
        return self._fixed(self._split(split)[index].drawing, index)

    def captions_of(self, index: int, split: str) -> list[str]:
        return list(self._split(split)[index].names)

    def vocabulary_texts(self) -> Iterator[str]:
        """Training names and templates: held-out names must be spelt with their pieces."""
        for template in self.templates:
            yield template.format("")
        for named in self.train:
            yield from named.names

    def held_out_texts(self) -> Iterator[str]:
        return (name for named in self.held_out for name in named.names)

    def zero_shot_pictures(self) -> dict[str, ZeroShotPictures]:
        """ "unseen": all drawings of the held-out concepts, named among these."""
        names = [named.names[0] for named in self.val]
        label_of = {named.concept: label for label, named in enumerate(self.val)}
        prompts = [[template.format(name) for template in self.templates] for name in names]
        labels = [label_of[named.concept] for named in self.held_out]
        return {"unseen": ZeroShotPictures(names, prompts, labels, lambda i: self._fixed(self.held_out[i].drawing, i))}

    def foil_sets(self, max_rows: int | None = None) -> dict[str, FoilSet]:
        """None: nothing is known but names."""
        return {}

    def _split(self, split: str) -> list:
        if split not in ("train", "val"):
            raise ValueError(f"there is no split {split!r} of the emoji, only 'train' and 'val'")
        return self.train if split == "train" else self.val

    def _fixed(self, drawing: str, index: int) -> np.ndarray:
        return self._compose(drawing, 0.85, 0, random.Random(index).random, shift=0.0)

    def _compose(
        self, drawing: str, scale: float, rotation: int, draw: random.Random.random, shift: float = 1.0
    ) -> np.ndarray:
        size = self.image_size
        canvas = np.empty((size, size, 3), dtype=np.uint8)
        shade = (2 * draw() - 1, 2 * draw() - 1, 2 * draw() - 1)
        paint_background(canvas, COLOUR_NAMES[int(draw() * len(COLOUR_NAMES))], int(draw() * NUM_TEXTURES), shade)
        patch = self._bank.patch(drawing, round(scale * size), rotation)
        free_down, free_right = size - patch.keep.shape[0], size - patch.keep.shape[1]
        left, top = (int(free * (0.5 + shift * (draw() - 0.5))) for free in (free_right, free_down))
        paste(canvas, patch, left, top)
        return canvas
