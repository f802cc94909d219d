"""What happens to files on the way: flipped bits, cuts, nothing left, something else in their place; from a seed."""

import random
from pathlib import Path

FOREIGN = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00",
    b"<!DOCTYPE html><html><body>404</body></html>",
    b"[]",
    b'{"a": 1}\n',
    b"null",
    b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07strange\x94.",
    b"PK\x05\x06" + bytes(18),
    b"\xff\xfe\x00\xd8",
)
KINDS = ("bit", "bit", "bit", "byte", "cut", "cut", "empty", "zeros", "foreign", "gone", "longer")


def damage(file: Path, dice: random.Random) -> str:
    """Damages a file in one way; says how."""
    kind, content = dice.choice(KINDS), bytearray(file.read_bytes())
    place = dice.randrange(len(content)) if content else 0
    if kind in ("bit", "byte") and content:
        content[place] ^= 1 << dice.randrange(8) if kind == "bit" else dice.randrange(1, 256)
    elif kind == "cut":
        del content[place:]
    elif kind == "zeros":
        content[place:] = bytes(len(content) - place)
    elif kind == "longer":
        content += dice.randbytes(dice.randrange(1, 100))
    elif kind == "foreign":
        content = bytearray(dice.choice(FOREIGN))
    else:
        content = bytearray()
    file.unlink()  # a link to it stays as it was
    if kind != "gone":
        file.write_bytes(content)
    return f"{kind} at {place} of {file.name}"
