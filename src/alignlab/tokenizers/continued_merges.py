"""Byte pair encoding gone on with: new merges behind all old ones, for one script.

A merge is taken only if its result can't occur in a text without a character of the script. So any other text is cut as
before, by construction and not by chance.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Sequence
from functools import cache
from itertools import pairwise, product
from typing import NamedTuple

SCRIPTS = {
    "han": ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFD)),
    "kana": ((0x3041, 0x30FF), (0x31F0, 0x31FF)),
    "hangul": ((0x1100, 0x11FF), (0x3131, 0x318E), (0xAC00, 0xD7A3)),
    "cyrillic": ((0x400, 0x52F),),
    "greek": ((0x370, 0x3FF), (0x1F00, 0x1FFF)),
    "arabic": ((0x600, 0x6FF), (0x750, 0x77F)),
    "hebrew": ((0x590, 0x5FF),),
    "devanagari": ((0x900, 0x97F),),
    "thai": ((0xE00, 0xE7F),),
}


@cache
def of_script(script: str) -> Callable[[str], bool]:
    """Whether a character is of a script."""
    ranges = SCRIPTS[script]
    return lambda char: any(low <= ord(char) <= high for low, high in ranges)


def implies(piece: bytes, inside: Callable[[str], bool]) -> bool:
    """Whether every text that holds these bytes holds a character of a script.

    Bytes may begin or end in the middle of a character: of one that begins here, all that it can become must be inside.
    """
    at = next((n for n, byte in enumerate(piece) if byte & 0xC0 != 0x80), len(piece))
    while at < len(piece):
        lead = piece[at]
        size = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
        char = piece[at : at + size]
        missing = size - len(char)
        if _all_inside(char, missing, inside):
            return True
        at += size
    return False


@cache
def _all_inside(start: bytes, missing: int, inside: Callable[[str], bool]) -> bool:
    """Whether all characters that begin with these bytes are inside."""
    if missing > 2:
        return False
    tails = product(range(0x80, 0xC0), repeat=missing)
    chars = [(start + bytes(tail)).decode(errors="ignore") for tail in tails]
    return all(inside(char) for char in chars if char) and any(chars)


def pure(piece: bytes, inside: Callable[[str], bool]) -> bool:
    """Whether a piece is of a script alone, but for a space in front and bytes of a character that began before it."""
    piece = piece.removeprefix(b" ")
    while piece and piece[0] & 0xC0 == 0x80:
        piece = piece[1:]
    text = piece.decode(errors="ignore")
    tail = piece[len(text.encode()) :]
    return all(map(inside, text)) and (not tail or implies(tail, inside))


class Merge(NamedTuple):
    """A new piece.

    Attributes:
        left, right: what it is put together from; `right` is empty for a character that had no piece.
        saved: tokens that it saves on the texts it was learned from.
    """

    left: str
    right: str
    saved: int


class Learner:
    """Counts of neighbours, kept up to date while merges are made.

    Args:
        words: what merging happens within, in today's symbols, and how often each occurs.
        missing: symbols that have no piece, and the tokens that each takes; a merge needs them learned first.
        allowed: whether two symbols may merge.
    """

    def __init__(
        self,
        words: Iterable[tuple[Sequence[str], int]],
        missing: dict[str, int],
        allowed: Callable[[str, str], bool],
    ) -> None:
        rows = [(list(word), times) for word, times in words]
        self.words, self.times = [word for word, _ in rows], [times for _, times in rows]
        self.missing, self.allowed = dict(missing), allowed
        self.pairs: Counter[tuple[str, str]] = Counter()
        self.where: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
        self.single: defaultdict[str, set[int]] = defaultdict(set)
        self.queue: list[tuple[int, tuple[str, str]]] = []
        for index in range(len(self.words)):
            self._count(index, 1)
        for char in missing:
            for index, word in enumerate(self.words):
                if char in word:
                    self.single[char].add(index)
        for pair, count in self.pairs.items():
            heapq.heappush(self.queue, (-count, pair))
        self._chars = [
            (-sum(self.words[i].count(char) * self.times[i] for i in self.single[char]) * (cost - 1), (char, ""))
            for char, cost in missing.items()
        ]
        heapq.heapify(self._chars)

    def learn(self, count: int, known: Container[str] = (), least: int = 2) -> list[Merge]:
        """Merges until `count` new pieces are made, each the one that saves most, none that saves fewer than `least`
        tokens.

        Args:
            known: pieces that there are already.
        """
        merges: list[Merge] = []
        new: set[str] = set()
        while len(new) < count:
            pair, gain = self._best()
            if gain < least:
                break
            if pair[1]:
                self._merge(pair)
            else:
                self._add_character(pair[0])
            merges.append(Merge(*pair, gain))
            if (made := pair[0] + pair[1]) not in known:
                new.add(made)
        return merges

    def _best(self) -> tuple[tuple[str, str], int]:
        while self.queue and -self.queue[0][0] != self.pairs[self.queue[0][1]]:  # counted anew since it was queued
            _, pair = heapq.heappop(self.queue)
            if self.pairs[pair] > 0:
                heapq.heappush(self.queue, (-self.pairs[pair], pair))
        heads = [heap[0] for heap in (self.queue, self._chars) if heap]
        gain, pair = min(heads, default=(0, ("", "")))
        if pair[1]:
            heapq.heappop(self.queue)
        elif self._chars:
            heapq.heappop(self._chars)
        return pair, -gain

    def _count(self, index: int, sign: int) -> None:
        word, times = self.words[index], self.times[index]
        last: tuple[str, str] | None = None
        for pair in pairwise(word):
            if pair == last and pair[0] == pair[1]:  # `aaa` holds `aa` once
                last = None
                continue
            last = pair
            if pair[0] in self.missing or pair[1] in self.missing or not self.allowed(*pair):
                continue
            self.pairs[pair] += sign * times
            if sign > 0:
                self.where[pair].add(index)

    def _merge(self, pair: tuple[str, str]) -> None:
        for index in self.where.pop(pair):
            word = self.words[index]
            self._count(index, -1)
            at, made = 0, []
            while at < len(word):
                both = at + 1 < len(word) and (word[at], word[at + 1]) == pair
                made.append(word[at] + word[at + 1] if both else word[at])
                at += 2 if both else 1
            self.words[index] = made
            self._count(index, 1)
            self._queue(made, pair[0] + pair[1])
        del self.pairs[pair]

    def _add_character(self, char: str) -> None:
        indices = self.single.pop(char)
        for index in indices:
            self._count(index, -1)
        del self.missing[char]
        for index in indices:
            self._count(index, 1)
            self._queue(self.words[index], char)

    def _queue(self, word: Sequence[str], symbol: str) -> None:
        for pair in set(pairwise(word)):  # no other pair has become more frequent
            if symbol in pair and self.pairs[pair] > 0:
                heapq.heappush(self.queue, (-self.pairs[pair], pair))
