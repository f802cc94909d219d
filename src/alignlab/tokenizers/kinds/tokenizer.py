"""What a comparison asks of a tokenizer, and the two that need no file: bytes and characters."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol


class TextTokenizer(Protocol):
    """Text into ids and back, special tokens excluded.

    Attributes:
        kind: what it is (`BPE, bytes`, `WordPiece`, ...).
        implementation: program and version that encodes.
        size: ids, added and special ones included.
        pieces: bytes of each ordinary piece by id: no special and no added tokens. A piece of a SentencePiece model has
            a space where it writes `▁`, one of bytes is these bytes.
        unknown: the id that stands for what has none, or None.
        specials: special tokens that the tokenizer sets around one text when asked to.
        notes: what was assumed.
    """

    kind: str
    implementation: str
    size: int
    pieces: Mapping[int, bytes]
    unknown: int | None
    specials: int
    notes: list[str]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text."""

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Text of each row of ids."""


class Bytes:
    """A token a byte of UTF-8."""

    kind, implementation = "bytes", "Python"
    size, unknown, specials = 256, None, 0

    def __init__(self) -> None:
        self.pieces: Mapping[int, bytes] = {value: bytes([value]) for value in range(256)}
        self.notes: list[str] = []

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(text.encode()) for text in texts]

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        return [bytes(row).decode(errors="replace") for row in rows]


class _Characters(Mapping[int, bytes]):
    """Unicode's code points but surrogates, which no text holds."""

    def __getitem__(self, key: int) -> bytes:
        if not 0 <= key < 0x110000 or 0xD800 <= key < 0xE000:
            raise KeyError(key)
        return chr(key).encode()

    def __iter__(self) -> Iterable[int]:
        yield from range(0xD800)
        yield from range(0xE000, 0x110000)

    def __len__(self) -> int:
        return 0x110000 - 0x800


class Characters:
    """A token a code point."""

    kind, implementation = "characters", "Python"
    size, unknown, specials = 0x110000, None, 0

    def __init__(self) -> None:
        self.pieces: Mapping[int, bytes] = _Characters()
        self.notes: list[str] = []

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(map(ord, text)) for text in texts]

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        return ["".join(map(chr, row)) for row in rows]
