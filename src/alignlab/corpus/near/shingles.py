"""What near duplicates are told by: sets of shingles, and signatures that similar sets share parts of.

A text of 24 words or more is the set of its runs of five words (one of Han characters: of five characters); one of
fewer than 24 the set of its runs of three letters, spaces between words counted (of two characters of a script without
spaces). Between 16 and 24 a text is both, so that no pair above a Jaccard index of 2/3 falls between the two.

E entries of a batch (an entry is one text as one kind of set), H bands, R rows of a band.
"""

import itertools
from typing import NamedTuple

import numpy as np

from alignlab.corpus.letters import ALONE, Letters, Rolling, mixed

WORDS, LONG, SHORT = 5, 16, 24  # words of a shingle; from so many words on; below so many
BANDS, ROWS = 20, 5  # two sets of Jaccard index 0.7 share a band with probability 1 - (1 - 0.7^5)^20 = 0.975
_MULTIPLIERS = np.random.Generator(np.random.PCG64(20)).integers(0, 1 << 32, BANDS * ROWS, dtype=np.uint32) | 1
_ADDENDS = np.random.Generator(np.random.PCG64(21)).integers(0, 1 << 32, BANDS * ROWS, dtype=np.uint32)
_AT_ONCE = 1 << 15


class Shingled(NamedTuple):
    """Sets of the texts of a batch."""

    texts: np.ndarray  # (E,) number of the text, rising
    short: np.ndarray  # (E,) whether these are runs of letters
    bounds: np.ndarray  # (E + 1,) in `values`
    values: np.ndarray  # uint32, rising within a set
    bands: np.ndarray  # (H, E) uint32


def shingled(letters: Letters, wanted: np.ndarray) -> Shingled:
    """Sets and bands of the texts that `wanted`, a mask over texts, holds. One without a word has none."""
    counts = np.diff(letters.bounds)
    long_texts = np.flatnonzero(wanted & (counts >= LONG))
    short_texts = np.flatnonzero(wanted & (counts < SHORT) & (counts > 0))
    found = [_of_words(letters, long_texts), _of_letters(letters, short_texts)]
    texts = np.concatenate([long_texts, short_texts])
    short = np.repeat([False, True], [len(long_texts), len(short_texts)])
    owner = np.concatenate([found[0][0], found[1][0] + len(long_texts)])
    keys = (owner.astype(np.uint64) << np.uint64(32)) | np.concatenate([found[0][1], found[1][1]])
    keys.sort()
    keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])] if len(keys) else keys
    bounds = np.searchsorted(keys, np.arange(len(texts) + 1, dtype=np.uint64) << np.uint64(32))
    values = (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    return Shingled(texts, short, bounds, values, _bands(values, bounds, short))


def _of_words(letters: Letters, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    firsts, counts = letters.bounds[:-1][texts], np.diff(letters.bounds)[texts] - WORDS + 1
    places, owner = ranges(firsts, counts)
    return owner, letters.rolling.windows(WORDS)[places] >> np.uint64(32)


def _of_letters(letters: Letters, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first_words, counts = letters.bounds[:-1][texts], np.diff(letters.bounds)[texts]
    words, owner = ranges(first_words, counts)
    starts, ends = letters.words[0][words], letters.words[1][words]
    alone = (letters.kinds[starts] & ALONE) != 0
    # A space before a word and behind the last; none between characters that are written without.
    first = np.concatenate([[True], owner[1:] != owner[:-1]]) if len(owner) else np.zeros(0, bool)
    spaces = ~alone & ~first
    lengths = ends - starts + spaces
    places, word = ranges(starts - spaces, lengths)
    codes = letters.codes[places].astype(np.uint64) + np.uint64(7)
    gap = np.zeros(len(places), bool)
    gap[(np.cumsum(lengths) - lengths)[spaces]] = True
    codes[gap] = 39  # as a space's
    of_text = owner[word]
    bounds = np.searchsorted(of_text, np.arange(len(texts) + 1))
    sizes = np.where(letters.alone_share[texts] > 0.5, 2, 3)
    sizes = np.minimum(sizes, np.diff(bounds))
    rolling, owners, values = Rolling(codes), [], []
    for size in (1, 2, 3):
        mine = np.flatnonzero(sizes == size)
        windows, which = ranges(bounds[:-1][mine], np.diff(bounds)[mine] - size + 1)
        owners.append(mine[which])
        values.append(rolling.of(windows, windows + size) >> np.uint64(32))
    return np.concatenate(owners), np.concatenate(values)


def ranges(firsts: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All numbers of `count` ones from each of `firsts`, and which of them each number belongs to."""
    counts = np.maximum(counts, 0)
    owner = np.repeat(np.arange(len(firsts)), counts)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    return firsts[owner] + within, owner


def _bands(values: np.ndarray, bounds: np.ndarray, short: np.ndarray) -> np.ndarray:
    """(H, E) each a hash of the R least values of the set under R hash functions a x + b mod 2^32, a odd."""
    count = len(bounds) - 1
    bands = np.zeros((BANDS, count), np.uint64)
    least = np.empty((ROWS, count), np.uint32)
    cuts = [0]
    while cuts[-1] < count:  # as many sets at a time as stay in the cache
        cuts.append(max(cuts[-1] + 1, int(np.searchsorted(bounds, bounds[cuts[-1]] + _AT_ONCE, "right")) - 1))
    for band in range(BANDS):
        for first, last in itertools.pairwise(cuts):
            held = values[bounds[first] : bounds[last]]
            starts, hashed = bounds[first:last] - bounds[first], np.empty_like(held)
            for row in range(ROWS):
                np.multiply(held, _MULTIPLIERS[band * ROWS + row], out=hashed)
                hashed += _ADDENDS[band * ROWS + row]
                least[row, first:last] = np.minimum.reduceat(hashed, starts)
        for row in least:
            bands[band] = (bands[band] ^ row) * np.uint64(0x9E3779B97F4A7C15)
        mixed(bands[band])
    bands ^= short.astype(np.uint64) << np.uint64(45)
    return (bands >> np.uint64(32)).astype(np.uint32)
