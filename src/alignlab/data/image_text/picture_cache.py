"""Decoded pictures, reduced once and kept in a file that all workers share, so that later epochs decode nothing."""

import io
import math
import warnings
import weakref
from pathlib import Path

import numpy as np
from PIL import Image

from alignlab.data.image_text.picture_extras import orientation, png_pixels
from alignlab.data.image_text.picture_modes import as_rgb
from alignlab.data.pictures.members import Member
from alignlab.data.temporary import temporary_folder

_BICUBIC = Image.Resampling.BICUBIC


class PictureCache:
    """Slots for the first pictures of a list, uint8, in a memory-mapped temporary file.

    A picture is reduced to at most `side` x `side` pixels of area at its own aspect ratio, and takes `3 side^2` bytes.
    Pictures beyond `max_bytes` are decoded each time, and are as large as that makes them. Two
    workers that fill one slot at once write the same bytes.
    """

    def __init__(self, number: int, side: int, max_bytes: int, folder: str | None = None) -> None:
        self.area = side * side
        self.num_slots = min(number, max_bytes // (3 * self.area))
        self._folder, remove = temporary_folder("pictures", folder)
        self._remove = weakref.finalize(self, remove)
        if self.num_slots:
            with (self._folder / "pixels").open("wb") as pixels, (self._folder / "sizes").open("wb") as sizes:
                pixels.truncate(self.num_slots * 3 * self.area)  # sparse: takes room only where it is filled
                sizes.truncate(self.num_slots * 8)
        self._maps: tuple[np.memmap, np.memmap] | None = None

    def get(self, index: int, path: Path | Member) -> Image.Image:
        """Picture number `index`, decoded from `path` where it isn't kept yet; RGB.

        Raises:
            ValueError: if the file is missing, empty or no picture.
        """
        if index >= self.num_slots:  # another resampling would cost as much as decoding
            return read_picture(path, self.area, at_most=False)
        pixels, sizes = self._open()
        height, width = (int(value) for value in sizes[index])
        if height:
            return Image.frombuffer("RGB", (width, height), pixels[index, : 3 * height * width])
        picture = self._reduced(path)
        pixels[index, : 3 * picture.height * picture.width] = np.asarray(picture).reshape(-1)
        sizes[index] = (picture.height, picture.width)  # last: a slot with a size is complete
        return picture

    def _reduced(self, path: Path | Member) -> Image.Image:
        return read_picture(path, self.area)

    def _open(self) -> tuple[np.memmap, np.memmap]:
        if self._maps is None:
            pixels = np.memmap(self._folder / "pixels", np.uint8, "r+", shape=(self.num_slots, 3 * self.area))
            self._maps = pixels, np.memmap(self._folder / "sizes", np.uint32, "r+", shape=(self.num_slots, 2))
        return self._maps

    def __getstate__(self) -> dict:
        return {"area": self.area, "num_slots": self.num_slots, "_folder": self._folder, "_maps": None}


def read_picture(path: Path | Member, area: int, at_most: bool = True) -> Image.Image:
    """Decodes a picture file as RGB, turned upright, reduced to `area` pixels if it is larger; transparent parts are
    white. With `at_most=False` it is only reduced as far as that saves decoding, and never below `area`.

    JPEG files are decoded at a half, quarter or eighth where that is enough. What a file holds besides pixels, damaged
    or large, keeps none from being shown.

    Raises:
        ValueError: naming the file, if it is missing, empty, no picture, or one whose values have no shade of their
            own (32-bit numbers).
    """
    try:
        return _decoded(path, area, at_most)
    except Exception as error:  # whatever the many readers of PIL do with a broken file
        reason = " ".join(str(error).split()) or type(error).__name__
    try:
        if pixels := png_pixels(path):
            return _decoded(io.BytesIO(pixels), area, at_most)
    except Exception:  # the pixels are broken too: the first reason stands
        pass
    raise ValueError(f"the picture {path} can't be read: {reason}")


def _decoded(file: Path | Member | io.BytesIO, area: int, at_most: bool) -> Image.Image:
    file = file if isinstance(file, Path | io.BytesIO) else file.open()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata
        with Image.open(file) as picture:
            factor = math.sqrt(area / (picture.width * picture.height))
            if factor < 1:
                picture.draft("RGB", (max(1, int(picture.width * factor)), max(1, int(picture.height * factor))))
            turn = _TURNS.get(orientation(picture))
            picture = as_rgb(picture)
            if turn is not None:
                picture = picture.transpose(turn)
            size = _reduced_size(picture.size, area) if at_most else picture.size
            return picture if size == picture.size else picture.resize(size, _BICUBIC, reducing_gap=2.0)


def _reduced_size(size: tuple[int, int], area: int) -> tuple[int, int]:
    """Width and height with at most `area` pixels, at about the same ratio; at least one pixel each."""
    factor = math.sqrt(area / (size[0] * size[1]))
    if factor >= 1:
        return size
    width, height = (max(1, int(side * factor)) for side in size)
    return (min(width, area), 1) if height == 1 else (1, min(height, area)) if width == 1 else (width, height)


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
