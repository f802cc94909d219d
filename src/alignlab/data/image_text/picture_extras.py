"""What stands in picture files beside the pixels (texts, profiles, EXIF): no viewer refuses a picture for its sake."""

import struct
import zlib
from pathlib import Path

from PIL import Image

from alignlab.data.pictures.members import Member

_PNG = b"\x89PNG\r\n\x1a\n"
# What changes how pixels look: critical chunks begin with a capital besides.
_SHOWN = (b"tRNS", b"gAMA", b"sRGB", b"cHRM", b"eXIf")
_ORIENTATION = 0x0112  # EXIF tag


def orientation(picture: Image.Image) -> int:
    """How EXIF says that a picture is to be turned, 1 to 8; 1 where the block is damaged."""
    try:
        return picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # whatever PIL makes of a damaged block: the pixels don't depend on it
        return 1


def png_pixels(path: Path | Member) -> bytes | None:
    """A PNG file without texts, profiles and damaged extras; None where a file is no PNG or has none of these.

    PIL refuses texts and profiles of more than 1 MB, and extras with a wrong checksum.
    """
    content = path.read_bytes()
    if not content.startswith(_PNG):
        return None
    kept, place = [_PNG], len(_PNG)
    while place + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        kind, end = content[place + 4 : place + 8], place + 12 + length
        if kind[:1].isupper() or (kind in _SHOWN and _sound(content, place, end)):
            kept.append(content[place:end])
        place = end
    pixels = b"".join(kept)
    return None if len(pixels) == len(content) else pixels


def _sound(content: bytes, place: int, end: int) -> bool:
    """Whether the checksum of the chunk in these bytes is right."""
    return zlib.crc32(content[place + 4 : end - 4]) == int.from_bytes(content[end - 4 : end], "big")
