"""Texts with a label each, good or bad: rows of users' files, and the built-in reviews by their ratings."""

from collections.abc import Sequence

import numpy as np
import torch

from alignlab.data.language.batches import Shuffled, Split, TokenStore, right_padded, targets
from alignlab.data.language.rated_reviews import rated_reviews
from alignlab.data.language.rendering import Renderer
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


class MovieLabels:
    """Movie reviews with a mean rating beyond `least` as good or bad texts, for KTO.

    Args:
        least: mean rating, of -4 to 4, of a good review at least, of a bad one at most its negative.
        split_seed: salts the hash of the text that divides them.
        val_share: share of the texts that is held out.

    Raises:
        ValueError: `least` is negative, or no review is as good as that.
    """

    def __init__(self, *, least: float = 0.5, split_seed: int, val_share: float) -> None:
        if not 0 <= least < 3:
            raise ValueError(f"least is {least}; it must be at least 0 and below 3, ratings go from -4 to 4")
        self.least, self.split_seed, self.val_share = least, split_seed, val_share

    def rows(self, split: Split, renderer: Renderer, seed: int) -> LabelledRows:
        rated = rated_reviews().part(split, self.split_seed, self.val_share)
        means = rated.means
        kept = np.flatnonzero(np.abs(means) >= max(self.least, 1e-6))
        store = TokenStore(renderer.texts([("", rated.texts[i]) for i in kept]))
        return LabelledRows(store, means[kept] > 0, seed, renderer.max_length)
