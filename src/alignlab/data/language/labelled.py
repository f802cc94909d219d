"""Texts with a label each, good or bad."""

from collections.abc import Sequence

import numpy as np
import torch

from alignlab.data.language.batches import Shuffled, TokenStore, right_padded, targets
from alignlab.types.language import LabelledBatch


class LabelledRows(Shuffled):
    """Texts with labels; each batch has their prompts with other rows' responses besides.

    Args:
        labels: (N,) bool, whether a text is good.
        max_length: ids of a prompt with another's response at most.
    """

    batch_type = LabelledBatch

    def __init__(self, store: TokenStore, labels: np.ndarray, seed: int | None, max_length: int) -> None:
        super().__init__(seed)
        self.store, self.labels, self.max_length = store, labels, max_length

    def __len__(self) -> int:
        return len(self.store)

    def row_lengths(self, epoch: int) -> np.ndarray:
        return self.store.lengths

    def __getitems__(self, serials: Sequence[int]) -> LabelledBatch:
        _, rows = self.rows(serials)
        texts, marks = [self.store.ids(i) for i in rows], [self.store.response(i) for i in rows]
        ids, mask = right_padded(texts)
        starts = [int(np.argmax(mark)) for mark in marks]  # of the first response
        answers = [text[start:] for text, start in zip(texts, starts, strict=True)]
        told = [mark[start:] for mark, start in zip(marks, starts, strict=True)]
        others, other_marks = [], []
        for i, (text, start) in enumerate(zip(texts, starts, strict=True)):
            others.append(np.concatenate([text[:start], answers[i - 1]])[: self.max_length])
            other_marks.append(np.concatenate([np.zeros(start, dtype=bool), told[i - 1]])[: self.max_length])
        label = torch.from_numpy(self.labels[rows])
        other = (right_padded(others)[0], targets(other_marks))
        return LabelledBatch(ids, mask, targets(marks), label, torch.from_numpy(rows), *other)
