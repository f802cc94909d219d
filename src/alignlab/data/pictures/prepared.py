"""Pictures from files as training sees them, cropped and changed, and as evaluation does, whole; and what broken ones
do.
"""

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from alignlab.data.image_text.augmentation import random_augment, random_resized_crop
from alignlab.data.image_text.picture_cache import PictureCache, read_picture
from alignlab.data.image_text.picture_list import CaptionedPicture
from alignlab.data.recipes.pictures import WHOLE, shaped, squashed
from alignlab.data.skipping import Skipped
from alignlab.types.recipes import PictureRecipe

_CACHE_SIDE = 1.4  # cached pictures have about twice the area of a training picture, so that crops stay sharp


class PreparedPictures:
    """What sources whose pictures are files share.

    Args:
        image_size: height and width in pixels.
        crop_scale: shares of a training picture's area that a random crop may have.
        flip: mirrors half of the training pictures; texts say left and right.
        augment_operations: of RandAugment, as `augment_magnitude`.
        on_error: what a wrong row, a missing file and a broken picture do: "raise", or "skip" with a line each. For a
            training row whose picture is broken another one of the batch is taken; pictures of other splits are all
            decoded at the start, so that every rank leaves the same ones out.
        max_skipped: so many may be left out by one process.
        cache_gb: gigabytes for decoded training pictures.
    """

    recipe: PictureRecipe | None = None  # of a released net, for pictures that aren't trained on

    def __init__(
        self,
        image_size: int,
        *,
        seed: int = 0,
        crop_scale: tuple[float, float] = (0.5, 1.0),
        flip: bool = False,
        augment_operations: int = 0,
        augment_magnitude: float = 7.0,
        on_error: Literal["raise", "skip"] = "raise",
        max_skipped: int = 1000,
        cache_gb: float = 4.0,
    ) -> None:
        if not 0 < crop_scale[0] <= crop_scale[1] <= 1:
            raise ValueError(f"crop_scale is {list(crop_scale)}; it must be two rising numbers in (0, 1]")
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is {on_error!r}; it must be 'raise' or 'skip'")
        if not 0 <= augment_magnitude <= 10:
            raise ValueError(f"augment_magnitude is {augment_magnitude}; it must be 0 to 10")
        self.image_size, self.seed, self.crop_scale, self.flip = image_size, seed, crop_scale, flip
        self.augment_operations, self.augment_magnitude = augment_operations, augment_magnitude
        self.on_error, self._cache_bytes = on_error, int(cache_gb * 1e9)
        self.left_out = Skipped(max_skipped)
        self.skipped: set[int] = set()  # broken training pictures that this process has met

    @property
    def bad(self) -> Callable[[ValueError], None] | None:
        """Is told what is wrong with a row that is left out; None where that is raised."""
        return self.left_out if self.on_error == "skip" else None

    def keep(self, number: int) -> None:
        """Makes room for so many decoded training pictures."""
        self._cache = PictureCache(number, round(_CACHE_SIDE * self.image_size), self._cache_bytes)

    def training_picture(self, index: int, entry: CaptionedPicture, rng: random.Random) -> np.ndarray | None:
        """(H, W, 3) uint8 of training picture number `index`; None where it is broken and left out."""
        if index in self.skipped:
            return None
        try:
            picture = self._cache.get(index, entry.path)
        except ValueError as error:
            if self.on_error == "raise":
                raise ValueError(f"{entry.where}: {error} (on_error=skip leaves it out)") from None
            self.skipped.add(index)
            self.left_out(ValueError(f"{entry.where}: {error}"))
            return None
        picture = random_resized_crop(picture, self.image_size, self.crop_scale, rng)
        if self.flip and rng.random() < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.asarray(random_augment(picture, self.augment_operations, self.augment_magnitude, rng))

    def whole_picture(self, entry: CaptionedPicture) -> np.ndarray:
        """(H, W, 3) uint8 of a picture that isn't trained on; ValueError names its place where it is broken."""
        return self.squared(self.decoded(entry))

    def decoded(self, entry: CaptionedPicture) -> Image.Image:
        """As `whole_picture`, before it is made square."""
        try:
            return read_picture(entry.path, (4 * self.image_size) ** 2 if self.recipe is None else WHOLE)
        except ValueError as error:
            hint = " (on_error=skip leaves it out)" if self.on_error == "raise" else ""
            raise ValueError(f"{entry.where}: {error}{hint}") from None

    def squared(self, picture: Image.Image) -> np.ndarray:
        if self.recipe is not None:
            return shaped(picture, self.image_size, self.recipe)
        return squashed(picture, self.image_size)

    def readable(self, entries: Iterable[CaptionedPicture], split: str) -> list[CaptionedPicture]:
        """Those of a split's pictures that can be decoded; the others are said."""
        readable, first = [], Path()
        for entry in entries:
            first = first if first.name else entry.path
            try:
                self.decoded(entry)
                readable.append(entry)
            except ValueError as error:
                self.left_out(error)
        if not readable:
            raise ValueError(f"every picture of the split {split!r} is broken; the first: {first}")
        return readable
