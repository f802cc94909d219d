"""Texts that are nearly those that stood there before."""

from hashlib import blake2b

import numpy as np

from alignlab.corpus.documents import Batch
from alignlab.corpus.near.shingles import Shingled, shingled


class NearDup:
    """Keeps one of documents whose sets of shingles have a Jaccard index of `threshold` or more.

    A document goes only if it is that similar to one that is kept: similarity of neighbours in a chain adds nothing.

    Args:
        threshold: the index, from 0.5 to 1.
        across_pictures: as in `exact_dup`.
    """

    name = "near_dup"

    def __init__(self, threshold: float = 0.7, across_pictures: bool = False) -> None:
        if not 0.5 <= threshold <= 1:
            raise ValueError(f"threshold is {threshold}; it must lie between 0.5 and 1")
        self.threshold, self.across = threshold, across_pictures

    def sets(self, batch: Batch) -> Shingled:
        """Sets and bands of the batch's documents."""
        return shingled(batch.letters, batch.alive)

    def columns(self, batch: Batch) -> dict[str, np.ndarray]:
        """A hash of what only documents that may be duplicates have in common, (D,): their picture."""
        found = np.zeros(len(batch.documents), np.uint64)
        for number, document in batch.living():
            if document.group and not self.across:
                digest = blake2b(document.group.encode(errors="surrogatepass"), digest_size=8).digest()
                found[number] = np.frombuffer(digest, np.uint64)[0]
        return {f"{self.name}_group": found}
