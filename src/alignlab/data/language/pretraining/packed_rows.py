"""Rows of equally many tokens, cut out of packed tokens when they are asked for.

Legend: N documents, T tokens of a row.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from alignlab.data.language.batches import Shuffled, Split, TokenStore, token_batch
from alignlab.data.language.pretraining.packed_tokens import PackedTokens
from alignlab.types.language import TokenBatch


class Stretch(NamedTuple):
    """A part of documents: numbers (N,), and from which token (N,) to which (N,) each is taken."""

    documents: np.ndarray
    starts: np.ndarray
    stops: np.ndarray


def stretch_of(packed: PackedTokens, split: Split, seed: int, val_share: float) -> Stretch:
    """The documents of a split, by a hash of their texts; of a single document its beginning, or its end.

    Raises ValueError where a split would be empty.
    """
    lengths = packed.lengths
    if len(lengths) == 1:
        border = np.array([int(lengths[0] * (1 - val_share))])
        train = split == "train"
        return Stretch(np.zeros(1, np.int64), border * (not train), border if train else lengths)
    chosen = np.flatnonzero(packed.held_out(seed, val_share) == (split == "val"))
    if not len(chosen):
        raise ValueError(f"none of {len(lengths)} documents is for {split}; set val_path or val_share")
    return Stretch(chosen, np.zeros_like(chosen), lengths[chosen])


def every(packed: PackedTokens) -> Stretch:
    """All documents, whole."""
    return Stretch(np.arange(len(packed)), np.zeros(len(packed), np.int64), packed.lengths)


class PackedRows(Shuffled):
    """Documents behind each other, cut every `length` tokens: a row holds the end of one document, whole ones and the
    beginning of another, which don't see each other. Only the last row may be shorter.

    Each document begins with the tokenizer's begin of text (else its end of text), and ends with the latter, unless
    `pack --end` put an id there. In memory are 32 bytes a document and 16 a row.

    Args:
        mask: "prefix" marks a beginning of each piece, of a random length, or with `half` the first half, as what is
            read and not predicted.
        draw: seed of these lengths, which are the same in every epoch.
    """

    batch_type = TokenBatch

    def __init__(
        self,
        packed: PackedTokens,
        stretch: Stretch,
        tokenizer: PreTrainedTokenizerBase,
        length: int,
        seed: int | None,
        *,
        mask: Literal["causal", "prefix"] = "causal",
        draw: int = 0,
        half: bool = False,
    ) -> None:
        super().__init__(seed)
        end = tokenizer.eos_token_id
        self._begin = end if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        self._end = [] if packed.end is not None else [end]
        self._packed, self._stretch, self._length = packed, stretch, length
        self._mask, self._draw, self._half = mask, draw, half
        self._reached = np.cumsum(stretch.stops - stretch.starts + 1 + len(self._end))  # documents' ends in the stream
        tokens = int(self._reached[-1])
        rows, rest = divmod(tokens, length)
        self._lengths = np.full(rows + (rest > 1), length, np.int64)  # a row of one token predicts nothing
        if rest > 1:
            self._lengths[-1] = rest

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def longest(self) -> int:
        """Tokens of the longest piece of a document, at most."""
        return min(self._length, int(np.diff(self._reached, prepend=0).max()))

    def row_lengths(self, epoch: int) -> np.ndarray:
        return self._lengths

    def __getitems__(self, serials: Sequence[int]) -> TokenBatch:
        rows, pieces, response = [], [], []
        for row in self.rows(serials)[1].tolist():
            cut = list(self._pieces(row))
            rows.append(list(range(len(pieces), len(pieces) + len(cut))))
            pieces += cut
            response += self._predicted(row, cut)
        lengths = np.array([len(piece) for piece in pieces], np.int64)
        return token_batch(TokenStore.of(np.concatenate(pieces), np.concatenate(response), lengths), rows)

    def _pieces(self, row: int) -> Iterator[np.ndarray]:
        """The parts of documents that lie in a row."""
        at, last = row * self._length, row * self._length + int(self._lengths[row])
        number = int(np.searchsorted(self._reached, at, "right"))
        while at < last:
            first = int(self._reached[number - 1]) if number else 0
            stop = min(last, int(self._reached[number]))
            yield self._tokens(number, at - first, stop - first)
            at, number = stop, number + 1

    def _tokens(self, number: int, start: int, stop: int) -> np.ndarray:
        """Tokens of a document with its begin (token 0) and end of text."""
        document, first, last = (int(column[number]) for column in self._stretch)
        within = self._packed.part(document, first + max(start - 1, 0), min(first + stop - 1, last))
        begin = [self._begin] if start == 0 else []
        end = self._end if stop > last - first + 1 else []
        return np.concatenate([np.array(begin, np.int32), within.astype(np.int32), np.array(end, np.int32)])

    def _predicted(self, row: int, pieces: Sequence[np.ndarray]) -> list[np.ndarray]:
        if self._mask == "causal":
            return [np.ones(len(piece), np.bool_) for piece in pieces]
        shares = np.random.default_rng([self._draw, row]).random(len(pieces))
        if self._half:
            shares = np.full(len(pieces), 0.5)
        inside = [min(int(share * len(piece)), len(piece) - 1) for share, piece in zip(shares, pieces, strict=True)]
        return [np.arange(len(piece)) >= first for first, piece in zip(inside, pieces, strict=True)]
