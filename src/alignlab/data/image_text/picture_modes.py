"""Pictures of every mode as RGB, the way a viewer shows them: 16 bits, transparent colours, palettes, CMYK."""

import numpy as np
from PIL import Image

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # TIFF tags
_WHITE_IS_ZERO = 0


def as_rgb(picture: Image.Image) -> Image.Image:
    """RGB on white.

    Raises:
        ValueError: for numbers that have no shade of their own: 32-bit integers and floats.
    """
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("PNG", "PPM")):
        return _from_16_bits(picture)
    if picture.mode in ("I", "F"):
        raise ValueError(f"its values are 32-bit numbers (mode {picture.mode}); save it with 8 or 16 bits")
    if picture.mode == "LAB":
        from PIL import ImageCms

        spaces = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(picture, *spaces, outputMode="RGB")
    clear = picture.info.get("transparency")
    if isinstance(clear, tuple) and max(clear) > 255:  # of 16 bits; of the pixels PIL keeps the upper bytes
        picture.info["transparency"] = tuple(value >> 8 for value in clear)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def _from_16_bits(picture: Image.Image) -> Image.Image:
    """Grey of 16 bits (TIFF: also of 12) as grey of 8."""
    values = np.asarray(picture).astype(np.int64)
    tags = getattr(picture, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    grey = (values * 255 + (2**bits - 1) // 2) // (2**bits - 1)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey
    if isinstance(clear := picture.info.get("transparency"), int):
        grey[values == clear] = 255
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
