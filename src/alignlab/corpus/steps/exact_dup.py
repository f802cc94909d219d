"""Texts that stood there before, letter for letter but for case and spaces."""

from hashlib import blake2b

import numpy as np

from alignlab.corpus.documents import Batch


class ExactDup:
    """Keeps the first of equal documents, in the order of the inputs; those of different pictures aren't equal.

    Args:
        across_pictures: captions of different pictures may be duplicates of each other.
    """

    name = "exact_dup"

    def __init__(self, across_pictures: bool = False) -> None:
        self._across = across_pictures

    def columns(self, batch: Batch) -> dict[str, np.ndarray]:
        """128 bits of each document, (D, 2)."""
        found = np.zeros((len(batch.documents), 2), np.uint64)
        for number, document in batch.living():
            text = " ".join(batch.letters.lowered[number].split())
            group = "" if self._across else document.group
            digest = blake2b(f"{text}\0{group}".encode(errors="surrogatepass"), digest_size=16).digest()
            found[number] = np.frombuffer(digest, np.uint64)
        return {self.name: found}
