"""Decoded pictures, reduced once and kept in a file that all workers share, so that later epochs decode nothing."""

import math
import shutil
import tempfile
import weakref
from pathlib import Path

import numpy as np
from PIL import Image


class PictureCache:
    """Slots for the first pictures of a list, uint8, in a memory-mapped temporary file.

    A picture is reduced to at most `side` x `side` pixels of area at its own aspect ratio, and takes `3 side^2` bytes. Pictures beyond
    `max_bytes` are decoded each time. Two workers that fill one slot at once write the same bytes.
    """

    def __init__(self, number: int, side: int, max_bytes: int, folder: str | None = None) -> None:
        self.area = side * side
        self.num_slots = min(number, max_bytes // (3 * self.area))
        self._folder = Path(tempfile.mkdtemp(prefix="pictures-", dir=folder))
        self._remove = weakref.finalize(self, shutil.rmtree, self._folder, True)
        if self.num_slots:
            with (self._folder / "pixels").open("wb") as pixels, (self._folder / "sizes").open("wb") as sizes:
                pixels.truncate(self.num_slots * 3 * self.area)  # sparse: takes room only where it is filled
                sizes.truncate(self.num_slots * 4)
        self._maps: tuple[np.memmap, np.memmap] | None = None

    def get(self, index: int, path: Path) -> Image.Image:
        """Picture number `index`, decoded from `path` where it isn't kept yet; RGB.

        Raises
        ------
        ValueError
            if the file is missing, empty or no picture.
        """
        if index >= self.num_slots:
            return self._reduced(path)
        pixels, sizes = self._open()
        height, width = (int(value) for value in sizes[index])
        if height:
            return Image.frombuffer("RGB", (width, height), pixels[index, : 3 * height * width])
        picture = self._reduced(path)
        pixels[index, : 3 * picture.height * picture.width] = np.asarray(picture).reshape(-1)
        sizes[index] = (picture.height, picture.width)  # last: a slot with a size is complete
        return picture

    def _reduced(self, path: Path) -> Image.Image:
        return read_picture(path, self.area)

    def _open(self) -> tuple[np.memmap, np.memmap]:
        if self._maps is None:
            pixels = np.memmap(self._folder / "pixels", np.uint8, "r+", shape=(self.num_slots, 3 * self.area))
            self._maps = pixels, np.memmap(self._folder / "sizes", np.uint16, "r+", shape=(self.num_slots, 2))
        return self._maps

    def __getstate__(self) -> dict:
        return {"area": self.area, "num_slots": self.num_slots, "_folder": self._folder, "_maps": None}


def read_picture(path: Path, area: int) -> Image.Image:
    """Decodes a picture file as RGB, turned upright, reduced to `area` pixels if it is larger.

    JPEG files are decoded at a half, quarter or eighth where that is enough.

    Raises
    ------
    ValueError
        naming the file, if it is missing, empty or no picture.
    """
    try:
        with Image.open(path) as picture:
            factor = math.sqrt(area / (picture.width * picture.height))
            if factor < 1:
                picture.draft("RGB", (max(1, int(picture.width * factor)), max(1, int(picture.height * factor))))
            orientation = picture.getexif().get(0x0112, 1)
            if picture.mode in ("P", "LA", "RGBA"):
                picture = picture.convert("RGBA")
                white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
                picture = Image.alpha_composite(white, picture)
            picture = picture.convert("RGB")
            if orientation in _TURNS:
                picture = picture.transpose(_TURNS[orientation])
            factor = math.sqrt(area / (picture.width * picture.height))
            if factor < 1:
                size = max(1, int(picture.width * factor)), max(1, int(picture.height * factor))
                picture = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
            return picture
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the picture {path} can't be read: {error}") from None


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
