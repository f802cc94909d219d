"""Many texts looked at together: words, their places and hashes, by a table of what each code point is.

N code points of all texts, W words of all texts, D texts. A word is a run of letters, digits and marks; a character of
a script that is written without spaces (Han, kana, Thai, Lao, Khmer, Burmese) is a word of its own.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache, cached_property

import numpy as np

SPACE, LETTER, DIGIT, MARK, ALONE = 1, 2, 4, 8, 16
_WORDLY = LETTER | DIGIT | MARK
_LAST = 0x32400  # no letter is assigned behind
_ALONE = (
    (0x0E00, 0x0E7F),  # Thai
    (0x0E80, 0x0EFF),  # Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),
    (0x3040, 0x30FF),  # kana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9D),
    (0x1B000, 0x1B16F),
    (0x20000, 0x323AF),
)
_AT_ONCE = 1 << 16  # code points
_ODD = np.uint64(0x9E3779B97F4A7C15)
_BACK = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))


@cache
def table() -> np.ndarray:
    """What each code point below 0x110000 is: a byte of flags."""
    kinds = np.zeros(0x110000, np.uint8)
    of = {"L": LETTER, "N": DIGIT, "M": MARK}
    categories = [unicodedata.category(chr(code)) for code in range(_LAST)]
    kinds[:_LAST] = [of.get(category[0], 0) for category in categories]
    for code in range(0x3001):
        if chr(code).isspace():
            kinds[code] = SPACE
    for first, last in _ALONE:
        span = kinds[first : last + 1]
        span[span != 0] |= ALONE
    return kinds


_POWERS = {int(of): np.ones(1, np.uint64) for of in (_ODD, _BACK)}


def powers(count: int, of: np.uint64 = _ODD) -> np.ndarray:
    """The first powers of an odd number modulo 2^64, kept as far as they were asked for."""
    held = _POWERS[int(of)]
    if len(held) < count:
        grown = np.empty(1 << max(12, (count - 1).bit_length()), np.uint64)
        grown[: len(held)] = held
        size = len(held)
        while size < len(grown):  # x^(n + i) = x^n x^i
            more = min(size, len(grown) - size)
            np.multiply(grown[:more], np.uint64(pow(int(of), size, 1 << 64)), out=grown[size : size + more])
            size += more
        held = _POWERS[int(of)] = grown
    return held[:count]


def mixed(values: np.ndarray) -> np.ndarray:
    """A bijection of 64 bits under which every bit depends on all (splitmix64's last steps); in place."""
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


class Rolling:
    """Hashes of any stretch of a sequence of hashes in three operations, from sums of its begin."""

    def __init__(self, values: np.ndarray) -> None:
        self._sums = np.zeros(len(values) + 1, np.uint64)
        np.cumsum(values * powers(len(values)), out=self._sums[1:])

    def of(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """64-bit hashes of stretches: the same elements in the same order have the same."""
        back = powers(len(self._sums), _BACK)
        return mixed((self._sums[ends] - self._sums[starts]) * back[starts])

    def windows(self, size: int) -> np.ndarray:
        """Hashes of every stretch of `size`, one for each start; windows over the end of a text are among them."""
        count = max(0, len(self._sums) - size)
        return mixed((self._sums[size:] - self._sums[:count]) * powers(len(self._sums), _BACK)[:count])


class Letters:
    """Texts as one array of code points, in lower case, with a line break behind each.

    Attributes:
        lowered: (D,) the texts in lower case.
        codes: (N,) uint32.
        kinds: (N,) flags of `table`.
        starts, ends: (D,) of the texts in `codes`.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        # Each by itself: ASCII is lowered many times as quickly, and a few capitals have two small letters (İ).
        self.lowered = [text.lower() for text in texts]
        self.codes = np.frombuffer("\n".join([*self.lowered, ""]).encode("utf-32-le", "surrogatepass"), np.uint32)
        self.kinds = table()[self.codes]
        lengths = np.fromiter(map(len, self.lowered), np.int64, len(texts))
        self.ends = np.cumsum(lengths + 1) - 1
        self.starts = self.ends - lengths

    @cached_property
    def words(self) -> tuple[np.ndarray, np.ndarray]:
        """(W,) where words start and end in `codes`."""
        wordly, alone = (self.kinds & _WORDLY) != 0, (self.kinds & ALONE) != 0
        inside = wordly & ~alone
        before, behind = np.zeros_like(inside), np.zeros_like(inside)
        before[1:], behind[:-1] = inside[:-1], inside[1:]
        starts = np.flatnonzero((inside & ~before) | alone)
        ends = np.flatnonzero((inside & ~behind) | alone) + 1
        return starts, ends

    @cached_property
    def hashes(self) -> np.ndarray:
        """(W,) a 64-bit hash of each word; of as many code points at a time as stay in the cache."""
        starts, ends = self.words
        found = np.empty(len(starts), np.uint64)
        first = 0
        while first < len(starts):
            base = starts[first]
            last = max(first + 1, int(np.searchsorted(ends, base + _AT_ONCE, "right")))
            codes, kinds = (part[base : ends[last - 1]] for part in (self.codes, self.kinds))
            values = (codes + np.uint32(7)).astype(np.uint64)
            values[(kinds & _WORDLY) == 0] = 0
            found[first:last] = Rolling(values).of(starts[first:last] - base, ends[first:last] - base)
            first = last
        return found

    @cached_property
    def rolling(self) -> Rolling:
        """Over the hashes of all words."""
        return Rolling(self.hashes)

    @cached_property
    def bounds(self) -> np.ndarray:
        """(D + 1,) which words are whose: text d has those from bounds[d] to bounds[d + 1]."""
        return np.concatenate([np.searchsorted(self.words[0], self.starts), [len(self.words[0])]])

    @cached_property
    def alone_share(self) -> np.ndarray:
        """(D,) share of words that are a character of a script without spaces."""
        alone = np.concatenate([[0], np.cumsum((self.kinds[self.words[0]] & ALONE) != 0)])
        counts = np.diff(self.bounds)
        return np.diff(alone[self.bounds]) / np.maximum(counts, 1)

    @cached_property
    def spaced(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Runs of anything but spaces: (S,) starts, (S,) ends, (D + 1,) which are whose."""
        space = (self.kinds & SPACE) != 0
        before = np.ones_like(space)
        before[1:] = space[:-1]
        starts, ends = np.flatnonzero(~space & before), np.flatnonzero(space & ~before)
        return starts, ends, np.concatenate([np.searchsorted(starts, self.starts), [len(starts)]])

    def counted(self, where: np.ndarray) -> np.ndarray:
        """(D,) how many of a text's code points a mask (N,) holds."""
        bounds = zip(self.starts.tolist(), self.ends.tolist(), strict=True)
        return np.fromiter((np.count_nonzero(where[start:end]) for start, end in bounds), np.int64)
