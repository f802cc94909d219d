"""How files spell the bytes of a piece."""

import re
from collections.abc import Mapping
from functools import cache

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@cache
def byte_of() -> dict[str, int]:
    """GPT-2's alphabet, character to byte: printable Latin-1 stands for itself, the rest for U+0100 and on
    (openai/gpt-2, encoder.py, bytes_to_unicode)."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in own]
    return {chr(value): value for value in own} | {chr(256 + n): value for n, value in enumerate(others)}


@cache
def char_of() -> dict[int, str]:
    """The other way round."""
    return {value: char for char, value in byte_of().items()}


def spelled(piece: bytes) -> str:
    """Bytes in GPT-2's alphabet."""
    table = char_of()
    return "".join(table[value] for value in piece)


def from_alphabet(piece: str) -> bytes:
    """Bytes of a piece in GPT-2's alphabet; what isn't in it stands for itself (`</w>` is in it, letter by letter)."""
    table = byte_of()
    return b"".join(bytes([table[char]]) if char in table else char.encode() for char in piece)


def from_sentencepiece(piece: str) -> bytes:
    """Bytes of a piece with `▁` for a space and `<0x0A>` for a byte."""
    match = BYTE.fullmatch(piece)
    return bytes([int(match[1], 16)]) if match else piece.replace("▁", " ").encode()


def pieces_of(vocabulary: Mapping[str, int], style: str, without: set[int]) -> dict[int, bytes]:
    """Bytes by id.

    Args:
        style: `bytes` (GPT-2's alphabet), `sentencepiece`, or `plain`.
        without: ids of special and added tokens.
    """
    read = {"bytes": from_alphabet, "sentencepiece": from_sentencepiece, "plain": str.encode}[style]
    return {index: read(piece) for piece, index in vocabulary.items() if index not in without}


def broken(piece: bytes) -> bool:
    """Whether a piece is no whole characters, so that it says something only beside its neighbours."""
    try:
        piece.decode()
    except UnicodeDecodeError:
        return True
    return False
