"""SentencePiece models without the sentencepiece package: what is in the file."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# sentencepiece_model.proto of google/sentencepiece: numbers of fields and of the enums' values.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
UNIGRAM, BPE = 1, 2
ALGORITHMS = {1: "Unigram", 2: "BPE", 3: "words", 4: "characters"}


class Piece(NamedTuple):
    """A piece as it is spelled, its score and what it is."""

    text: str
    score: float
    type: int


class Model(NamedTuple):
    """What of a SentencePiece model matters here."""

    pieces: list[Piece]
    algorithm: int
    table: bytes  # of characters, applied first; empty where there is none
    prefix: bool  # a space is set in front
    squeezes: bool  # several spaces become one

    def unknown(self) -> int | None:
        """The id that stands for what has none."""
        return next((index for index, piece in enumerate(self.pieces) if piece.type == UNKNOWN), None)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a protocol buffer message."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
            continue
        size = {1: 8, 5: 4}.get(kind) or (varint() if kind == 2 else 0)
        if (not size and kind != 2) or at + size > len(data):
            raise ValueError("no protocol buffer")
        yield key >> 3, data[at : at + size]
        at += size


def read_model(file: Path) -> Model:
    """A model file, without the sentencepiece package."""
    try:
        pieces, trainer, normalizer = [], {}, {}
        for number, value in _fields(file.read_bytes()):
            if number == 1:
                inner = dict(_fields(value))
                score = struct.unpack("<f", inner.get(2, bytes(4)))[0]
                pieces.append(Piece(inner[1].decode(), score, inner.get(3, NORMAL)))
            elif number in (2, 3):
                (trainer if number == 2 else normalizer).update(_fields(value))
        assert pieces
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError, struct.error) as error:
        raise ValueError(f"{file} is no SentencePiece model") from error
    return Model(
        pieces,
        trainer.get(3, 1),
        normalizer.get(2, b""),
        bool(normalizer.get(3, 1)),
        bool(normalizer.get(4, 1)),
    )
