"""What is counted while texts go by: tokens, bytes, characters, losses. Memory doesn't grow with the corpus."""

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from alignlab.tokenizers.kinds.alphabet import broken
from alignlab.tokenizers.kinds.tokenizer import TextTokenizer

FAILURES = 5
HAN = re.compile(r"[㐀-䶿一-鿿豈-﫿\U00020000-\U0003fffd]")


class Vocabulary:
    """Facts about each id that counting needs.

    Attributes:
        broken: (size,) true for pieces that are no whole characters.
        used: (size,) true for ids that were counted.
        single: characters that are a piece of their own, with a space before or a `</w>` behind or not.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        size = max(tokenizer.size, max(tokenizer.pieces, default=0) + 1) + 4096  # ids of added tokens may leave gaps
        self.broken = np.zeros(size, dtype=bool)
        self.used = np.zeros(size, dtype=bool)
        self.unknown = tokenizer.unknown
        self.pieces = np.fromiter(tokenizer.pieces, dtype=np.int64)
        self._single: set[str] = set()
        for index, piece in tokenizer.pieces.items():
            if broken(piece):
                self.broken[index] = True
            elif len(piece) <= 9:
                self._single.add(piece.decode().removeprefix(" ").removesuffix("</w>"))

    def unused(self) -> float:
        """Share of ordinary pieces that no text has had."""
        return 1 - float(self.used[self.pieces].mean())

    def single_share(self, characters: Mapping[str, int]) -> float | None:
        """Share of characters, weighted by how often they occur, that are a piece of their own."""
        total = sum(characters.values())
        return sum(n for char, n in characters.items() if char in self._single) / total if total else None


class Measures:
    """Counts over the texts of one part of a corpus.

    Args:
        contexts: tokens that a model takes, special ones included.
        specials: how many of these are special.
    """

    def __init__(self, vocabulary: Vocabulary, contexts: Sequence[int], specials: int) -> None:
        self.vocabulary, self.contexts, self.specials = vocabulary, contexts, specials
        self.lengths: Counter[int] = Counter()
        self.han: Counter[str] = Counter()
        self.failures: list[dict[str, str]] = []
        self.in_order = array("I")
        self.texts = self.tokens = self.bytes = self.chars = 0
        self.exact = self.unknown = self.broken = 0

    def add(self, texts: Sequence[str], rows: Sequence[Sequence[int]], decoded: Sequence[str]) -> None:
        """Counts texts, their ids, and what these ids decode to."""
        ids = np.fromiter((i for row in rows for i in row), dtype=np.int64)
        lengths = [len(row) for row in rows]
        self.lengths.update(lengths)
        self.in_order.extend(lengths)
        self.texts += len(texts)
        self.tokens += len(ids)
        self.bytes += sum(len(text.encode()) for text in texts)
        self.chars += sum(map(len, texts))
        self.broken += int(self.vocabulary.broken[ids].sum())
        self.vocabulary.used[ids] = True
        if self.vocabulary.unknown is not None:
            self.unknown += int((ids == self.vocabulary.unknown).sum())
        for text, back in zip(texts, decoded, strict=True):
            self.han.update(HAN.findall(text))
            if text == back:
                self.exact += 1
            elif len(self.failures) < FAILURES:
                self.failures.append({"text": text, "back": back})

    def row(self) -> dict[str, Any]:
        """The columns of this part."""
        tokens = max(self.tokens, 1)
        return {
            "texts": self.texts,
            "tokens": self.tokens,
            "mean": self.tokens / self.texts,
            "median": quantile(self.lengths, 0.5),
            "p95": quantile(self.lengths, 0.95),
            "bytes per token": self.bytes / tokens,
            "chars per token": self.chars / tokens,
            "round trip": self.exact / self.texts,
            "unknown": self.unknown / tokens,
            "byte tokens": self.broken / tokens,
            "Han single": self.vocabulary.single_share(self.han),
            "truncated": {n: self.truncated(n) for n in self.contexts},
            "lost": {n: self.lost(n) for n in self.contexts},
            "lengths": sorted(self.lengths.items()),
            "failures": self.failures,
        }

    def truncated(self, context: int) -> float:
        """Share of texts that a context cuts."""
        room = context - self.specials
        return sum(n for length, n in self.lengths.items() if length > room) / self.texts

    def lost(self, context: int) -> float:
        """Share of tokens that a context loses."""
        room = context - self.specials
        return sum((length - room) * n for length, n in self.lengths.items() if length > room) / max(self.tokens, 1)


def quantile(counts: Mapping[int, int], q: float) -> float:
    """A quantile of counted values, linear between neighbours as `numpy.quantile`'s default."""
    values = sorted(counts)
    ends = np.cumsum([counts[value] for value in values])
    place = q * (int(ends[-1]) - 1)
    low, high = (values[int(np.searchsorted(ends, x, side="right"))] for x in (int(place), int(np.ceil(place))))
    return low + (high - low) * (place - int(place))


def parity(first: Iterable[int], second: Iterable[int], draws: int = 500, seed: int = 0) -> tuple[float, float, float]:
    """Tokens of the second text for a token of the first, over all pairs, with a 95 % interval by the bootstrap over
    pairs (percentiles)."""
    counts = np.stack([np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)])
    rng = np.random.default_rng(seed)
    size = counts.shape[1]
    sums = np.stack([counts[:, rng.integers(size, size=size)].sum(axis=1) for _ in range(draws)])
    low, high = np.quantile(sums[:, 1] / sums[:, 0], (0.025, 0.975))
    return float(counts[1].sum() / counts[0].sum()), float(low), float(high)


class PairMeasures:
    """What a context makes of preference pairs: the same ids on both sides, or no room for an answer at all."""

    def __init__(self, contexts: Sequence[int], specials: int) -> None:
        self.contexts, self.specials, self.pairs = contexts, specials, 0
        self.equal: Counter[int] = Counter()
        self.gone: Counter[int] = Counter()

    def add(self, prompt: Sequence[int], chosen: Sequence[int], rejected: Sequence[int]) -> None:
        """Ids of a prompt, and of both texts from the prompt's start on."""
        self.pairs += 1
        for context in self.contexts:
            room = max(context - self.specials, 0)
            self.equal[context] += chosen[:room] == rejected[:room]
            self.gone[context] += len(prompt) >= room

    def row(self) -> dict[str, Any]:
        """Shares of pairs, by context."""
        return {
            "pairs equal": {n: self.equal[n] / self.pairs for n in self.contexts},
            "pairs without answer": {n: self.gone[n] / self.pairs for n in self.contexts},
        }
