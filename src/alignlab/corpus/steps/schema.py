"""Rows that can't be read: broken lines, other encodings, missing columns, no text."""

from collections.abc import Iterator

from alignlab.corpus.documents import Batch, Verdict


class Schema:
    """Drops what is no document; the reason is what is wrong, the evidence what was found."""

    name = "schema"

    def __call__(self, batch: Batch) -> Iterator[tuple[int, Verdict]]:
        for number, document in batch.living():
            if document.wrong is not None:
                reason, _, found = document.wrong.partition(": ")
                yield number, Verdict(reason, {"found": found} if found else {})
