"""Which documents are near duplicates of which: candidates by bands, each compared, then stars around what is kept.

E entries of all parts (an entry is one document as one kind of set), numbered in the order of documents.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from alignlab.corpus.near.shingles import BANDS, ranges
from alignlab.corpus.near.stored import Stored

FIRST = 4  # members of a bucket that all others are compared with
AROUND = 8  # further duplicates of a dropped document that one of its is compared with
_AT_ONCE = 1 << 19  # elements compared at a time
_LOW = np.uint64(0xFFFFFFFF)


class Sets:
    """The sets of all entries, as they lie in files, of which only those are in memory that are being compared.

    Args:
        values: (..,) uint32 of each part, rising within a set.
        bounds: (E_p + 1,) of each part.
    """

    def __init__(self, values: Sequence[Stored], bounds: Sequence[np.ndarray]) -> None:
        self._values = values
        self._starts = np.concatenate([one[:-1] for one in bounds]).astype(np.int64)  # (E,) within the part
        self._sizes = np.concatenate([np.diff(one) for one in bounds]).astype(np.uint32)
        self._firsts = np.cumsum([0, *(len(one) - 1 for one in bounds)]).tolist()

    def __getitem__(self, entry: int) -> np.ndarray:
        part = bisect_right(self._firsts, entry) - 1
        start = int(self._starts[entry])
        return self._values[part].read(start, start + int(self._sizes[entry]))

    def near_in_size(self, left: np.ndarray, right: np.ndarray, threshold: float) -> np.ndarray:
        """(P,) which pairs could have an index of `threshold`: the smaller set is that share of the larger at least."""
        one, other = self._sizes[left], self._sizes[right]
        return np.minimum(one, other) >= threshold * np.maximum(one, other)

    def jaccard(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """(P,) the index of each pair of entries, exactly."""
        found = np.zeros(len(left))
        sizes = self._sizes[left].astype(np.int64) + self._sizes[right]
        ends, first = np.cumsum(sizes), 0
        while first < len(left):
            before = ends[first] - sizes[first]
            last = max(first + 1, int(np.searchsorted(ends, before + _AT_ONCE, "right")))
            held = [
                self[int(entry)] for pair in zip(left[first:last], right[first:last], strict=True) for entry in pair
            ]
            pair = np.repeat(np.arange(last - first, dtype=np.uint64), sizes[first:last])
            keys = (pair << np.uint64(32)) | np.concatenate(held)
            keys.sort()
            same = keys[1:][keys[1:] == keys[:-1]] >> np.uint64(32)
            shared = np.bincount(same.astype(np.int64), minlength=last - first)
            found[first:last] = shared / np.maximum(sizes[first:last] - shared, 1)
            first = last
        return found


def similar(
    bands: Callable[[int], np.ndarray],
    entries: np.ndarray,
    sets: Sets,
    groups: np.ndarray,
    threshold: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of entries that share a band and whose sets have an index of `threshold`: earlier, later, index.

    In a bucket every entry is compared with the first four and with its neighbour, so that a bucket of many costs a few
    comparisons each.

    Args:
        bands: gives the hashes (E,) of one band.
        entries: numbers of those that take part, rising.
        groups: (E,) only entries of one group can be duplicates.
    """
    seen = np.zeros(0, np.uint64)
    kept: list[np.ndarray] = []
    indices: list[np.ndarray] = []
    for band in range(BANDS):
        keys = (bands(band)[entries].astype(np.uint64) << np.uint64(32)) | entries.astype(np.uint64)
        keys.sort()
        pairs = np.unique(np.concatenate(list(_candidates(keys)))) if len(keys) > 1 else np.zeros(0, np.uint64)
        new = np.setdiff1d(pairs, seen, assume_unique=True)
        seen = np.union1d(seen, new)
        left, right = _split(new)
        alike = (groups[left] == groups[right]) & sets.near_in_size(left, right, threshold)
        new, left, right = new[alike], left[alike], right[alike]
        index = sets.jaccard(left, right)
        kept.append(new[index >= threshold])
        indices.append(index[index >= threshold])
    return *_split(np.concatenate(kept)), np.concatenate(indices)


def _split(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (pairs >> np.uint64(32)).astype(np.int64), (pairs & _LOW).astype(np.int64)


def _candidates(keys: np.ndarray) -> Iterator[np.ndarray]:
    """Pairs within the buckets of sorted keys, as earlier << 32 | later."""
    hashes, entries = keys >> np.uint64(32), keys & _LOW
    starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]]))
    sizes = np.diff(np.append(starts, len(keys)))
    many = sizes > 1
    starts, sizes = starts[many], sizes[many]
    for ahead in range(FIRST):
        places, owner = ranges(starts + ahead + 1, sizes - ahead - 1)
        yield (entries[starts[owner] + ahead] << np.uint64(32)) | entries[places]
    places, _ = ranges(starts + 1, sizes - 1)
    yield (entries[places - 1] << np.uint64(32)) | entries[places]


def dropped(
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray], alike: Callable[[int, int], float], threshold: float
) -> dict[int, tuple[int, float]]:
    """Which documents go, for which kept one, with the index of the two.

    Documents are taken in their order. One goes if it is similar to one that is kept: to a neighbour, or to what a
    dropped neighbour went for, or to others around that neighbour that were kept. So nothing goes for its likeness to
    something that is itself gone, and a chain of small changes keeps its ends.

    Args:
        pairs: of documents, earlier, later, index.
        alike: the index of any two documents.
    """
    order = np.lexsort((pairs[0], pairs[1]))
    gone: dict[int, tuple[int, float]] = {}
    around: dict[int, list[int]] = defaultdict(list)
    left, right, index = (values[order].tolist() for values in pairs)
    at = 0
    while at < len(right):
        document, known = right[at], {}
        while at < len(right) and right[at] == document:
            known[left[at]] = max(index[at], known.get(left[at], 0.0))
            at += 1
        kept = [(-value, other) for other, value in known.items() if other not in gone]
        if not kept:
            kept = _further(document, known, gone, around, alike, threshold)
        if kept:
            value, other = min(kept)
            gone[document] = (other, -value)
        else:
            for other in known:
                around[other].append(document)
    return gone


def _further(
    document: int,
    known: dict[int, float],
    gone: dict[int, tuple[int, float]],
    around: dict[int, list[int]],
    alike: Callable[[int, int], float],
    threshold: float,
) -> list[tuple[float, int]]:
    others = {gone[other][0] for other in known} | {one for other in known for one in around[other][:AROUND]}
    found = []
    for other in sorted(others):
        if other not in gone and (value := alike(other, document)) >= threshold:
            found.append((-value, other))
    return found
