"""From a decoded picture to the square that a net sees."""

import numpy as np
from PIL import Image

from alignlab.types.recipes import PictureRecipe

WHOLE = 2**62  # an area that no picture is reduced to


def squashed(picture: Image.Image, size: int) -> np.ndarray:
    """(size, size, 3) uint8, whatever its own shape was."""
    return np.array(picture.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=2.0))


def shaped(picture: Image.Image, size: int, recipe: PictureRecipe) -> np.ndarray:
    """(size, size, 3) uint8, pixel for pixel as a released net's processor makes it with PIL.

    size: instead of the recipe's own.
    """
    filter = Image.Resampling[recipe.interpolation.upper()]
    if recipe.resize == "squash":
        return np.array(picture.resize((size, size), filter))
    width, height = picture.size
    short = min(width, height)
    # both processors cut the long side to whole pixels
    wide, high = (size if side == short else int(size * side / short) for side in (width, height))
    if (wide, high) != (width, height):
        picture = picture.resize((wide, high), filter)
    left, top = (_middle(side - size, recipe.middle) for side in (wide, high))
    return np.array(picture.crop((left, top, left + size, top + size)))


def _middle(room: int, rounding: str) -> int:
    return room // 2 if rounding == "down" else round(room / 2)
