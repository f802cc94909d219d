"""Changes of training pictures, as functions of a random number generator of their own: the same number, the same
picture.
"""

import math
import random
from collections.abc import Callable

from PIL import Image, ImageEnhance, ImageOps

_GREY = (128, 128, 128)  # what shows where a picture was moved away
_MAX_LEVEL = 10


def random_resized_crop(picture: Image.Image, size: int, scale: tuple[float, float], rng: random.Random) -> Image.Image:
    """Cuts out a share of the area in `scale`, of an aspect ratio between 3:4 and 4:3, and resizes it to a square of
    `size` pixels.
    """
    width, height = picture.size
    for _ in range(10):
        area = width * height * (scale[0] + (scale[1] - scale[0]) * rng.random())
        ratio = math.exp((2 * rng.random() - 1) * math.log(4 / 3))
        crop_width, crop_height = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if crop_width <= width and crop_height <= height:
            break
    else:  # a very long picture: the largest square in its middle, moved at random
        crop_width = crop_height = min(width, height)
    left, top = (width - crop_width) * rng.random(), (height - crop_height) * rng.random()
    box = (left, top, left + crop_width, top + crop_height)
    return picture.resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)


def _moved(matrix: tuple[float, ...]) -> Callable[[Image.Image], Image.Image]:
    return lambda picture: picture.transform(
        picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=_GREY
    )


def _operations(level: float, sign: int) -> list[Callable[[Image.Image], Image.Image]]:
    """The ten operations at strength `level` in [0, 1]; none changes a hue, for captions name colours, and none
    mirrors.
    """
    slant, shift = 0.3 * level * sign, 0.45 * level * sign
    return [
        lambda picture: picture,
        ImageOps.autocontrast,
        ImageOps.equalize,
        lambda picture: ImageEnhance.Brightness(picture).enhance(1 + 0.9 * level * sign),
        lambda picture: ImageEnhance.Sharpness(picture).enhance(1 + 0.9 * level * sign),
        _moved((1, slant, 0, 0, 1, 0)),
        _moved((1, 0, 0, slant, 1, 0)),
        lambda picture: _moved((1, 0, shift * picture.width, 0, 1, 0))(picture),
        lambda picture: _moved((1, 0, 0, 0, 1, shift * picture.height))(picture),
        lambda picture: picture.rotate(30 * level * sign, Image.Resampling.BILINEAR, fillcolor=_GREY),
    ]


def random_augment(picture: Image.Image, number: int, magnitude: float, rng: random.Random) -> Image.Image:
    """RandAugment (arXiv:1909.13719) with the operations of ALBEF's pre-training, each left out every second time.

    `number` operations at `magnitude` of 10. Differs from the original in leaving out what changes colours.
    """
    for _ in range(number):
        sign = 1 if rng.random() < 0.5 else -1
        operations = _operations(magnitude / _MAX_LEVEL, sign)
        chosen = operations[int(rng.random() * len(operations))]
        if rng.random() < 0.5:
            picture = chosen(picture)
    return picture
