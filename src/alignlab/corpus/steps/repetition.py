"""Gopher's limits on runs of words that repeat within a text (arXiv:2112.11446, table A1).

W words of all texts, D texts, R runs of one size; shares are of the characters that lie in words.
"""

from collections.abc import Callable, Iterator

import numpy as np

from alignlab.corpus.letters import Letters, mixed

TOP = {2: 0.20, 3: 0.18, 4: 0.16}  # characters in the most frequent run of so many words
AGAIN = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}  # characters in runs that stood there before
_PLACE = np.uint64(24)  # bits of a key that are the place; the others are the hash
Found = Iterator[tuple[str, float, float]]


def repeated(letters: Letters, wanted: np.ndarray) -> Callable[[int], Found]:
    """What tells for each of the `wanted` texts of a batch, a mask, which limits it breaks: name, share and limit.

    Runs of more than five words are looked at only in texts with enough runs of five that stood there before: what
    longer runs cover, those of five cover too.
    """
    runs = _Runs(letters)
    tops, most = {}, None
    for size, limit in TOP.items():
        # A run can't occur more often than its pairs, nor be longer than so many of the longest word.
        some = wanted if most is None else wanted & (most * size * runs.longest > limit * runs.totals)
        tops[size], often = runs.top(size, some)
        most = often if most is None else most
    again = {5: runs.again(5, wanted)}
    if (some := again[5] > min(AGAIN.values())).any():
        again |= {size: runs.again(size, some) for size in AGAIN if size > 5}

    def tell(number: int) -> Found:
        for size, shares in tops.items():
            if shares[number] > TOP[size]:
                yield f"repetition: most frequent {size} words", shares[number], TOP[size]
        for size, shares in again.items():
            if shares[number] > AGAIN[size]:
                yield f"repetition: {size} words again", shares[number], AGAIN[size]

    return tell


class _Runs:
    def __init__(self, letters: Letters) -> None:
        self._rolling, self._bounds = letters.rolling, letters.bounds
        self._texts = len(letters.starts)
        self._owner = np.repeat(np.arange(self._texts), np.diff(letters.bounds))
        self._salt = mixed(np.arange(1, self._texts + 1, dtype=np.uint64))[self._owner]
        self._sums = np.concatenate([[0], np.cumsum(letters.words[1] - letters.words[0])])
        self.totals = np.maximum(np.diff(self._sums[letters.bounds]), 1)
        self.longest = np.zeros(self._texts, np.int64)
        if (filled := np.flatnonzero(np.diff(letters.bounds))).size:
            self.longest[filled] = np.maximum.reduceat(np.diff(self._sums), letters.bounds[:-1][filled])

    def top(self, size: int, some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(D,) share of characters in the most frequent run of `size` words, if it occurs twice; how often it does."""
        keys, shares, most = self._sorted(size, some), np.zeros(self._texts), np.zeros(self._texts, np.int64)
        if not len(keys):
            return shares, most
        starts = np.flatnonzero(_new(keys))
        often = np.diff(np.append(starts, len(keys)))
        places = (keys[starts] & np.uint64((1 << 24) - 1)).astype(np.int64)
        covered = often * (self._sums[places + size] - self._sums[places])
        owner = self._owner[places]
        np.maximum.at(most, owner, often)
        best = (often == most[owner]) & (often > 1)  # of several as frequent, the one with most characters
        np.maximum.at(shares, owner[best], covered[best] / self.totals[owner[best]])
        return shares, most

    def again(self, size: int, some: np.ndarray) -> np.ndarray:
        """(D,) share of characters in runs of `size` words that stood there before; of other texts than `some`: 0."""
        keys = self._sorted(size, some)
        if not len(keys):
            return np.zeros(self._texts)
        places = (keys[~_new(keys)] & np.uint64((1 << 24) - 1)).astype(np.int64)
        change = np.zeros(len(self._owner) + 1, np.int64)
        np.add.at(change, places, 1)
        np.add.at(change, places + size, -1)
        held = np.where(np.cumsum(change)[:-1] > 0, np.diff(self._sums), 0)
        return np.diff(np.concatenate([[0], np.cumsum(held)])[self._bounds]) / self.totals

    def _sorted(self, size: int, some: np.ndarray) -> np.ndarray:
        """(R,) rising keys of hash and place: equal runs of one text stand together, in order of places."""
        if len(self._owner) < size:
            return np.zeros(0, np.uint64)
        if len(self._owner) >= 1 << 24:
            raise ValueError("a text has more than 16 million words; cut it")
        hashes = self._rolling.windows(size)
        inside = self._owner[: len(hashes)] == self._owner[size - 1 :]
        inside &= some[self._owner[: len(hashes)]]
        places = np.flatnonzero(inside).astype(np.uint64)
        keys = (((hashes ^ self._salt[: len(hashes)])[inside] >> _PLACE) << _PLACE) | places
        keys.sort()
        return keys


def _new(keys: np.ndarray) -> np.ndarray:
    """Which keys have another hash than the one before."""
    hashes = keys >> _PLACE
    return np.concatenate([[True], hashes[1:] != hashes[:-1]])
