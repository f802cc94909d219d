"""Questions about pictures with one or more answers, and batches of them."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from alignlab.data.image_text.vocabulary import CaptionEncoder
from alignlab.data.picture_tasks.rows import Hidden, stack_hidden
from alignlab.types.picture_tasks import Answers, QuestionBatch


class Question(NamedTuple):
    """A question about a picture, and what people answer."""

    picture: np.ndarray  # (H, W, 3) uint8
    text: str
    answers: Sequence[tuple[str, float]]  # and the share of people who say so
    kind: str  # questions of a kind are counted apart


class QuestionSource(Protocol):
    """What a data set of questions has to offer besides the methods of a `PairSource`."""

    answers: Sequence[str]  # all that there are, to choose from

    def num_rows(self, split: str) -> int: ...

    def question(self, serial: int, split: str) -> Question:
        """Question of "train" or "val"; training ones beyond `num_rows` are those of later epochs."""


class QuestionRows(Dataset):
    """Whole batches of a split; held-out ones with all answers and what each is worth.

    worth: of an answer that a share s of people gave, min(1, s / least): VQA's 3 of 10 people.
    """

    least = 0.3

    def __init__(self, source: QuestionSource, split: str, encode: CaptionEncoder, hide: Hidden = "nothing") -> None:
        self.source, self.split, self.encode, self.hide = source, split, encode, hide
        # salesforce/ALBEF b9727e4 dataset/vqa_dataset.py:68: answers, unlike texts, have an end
        self._encode_answers = CaptionEncoder(encode.tokenizer, encode.context_length, append_sep=True)
        self._number = {answer: number for number, answer in enumerate(source.answers)}

    def __len__(self) -> int:
        return self.source.num_rows(self.split)

    def __getitems__(self, serials: Sequence[int]) -> QuestionBatch:
        rows = [self.source.question(serial, self.split) for serial in serials]
        ids, mask = self.encode(["" if self.hide == "texts" else row.text for row in rows])
        given = [(number, *answer) for number, row in enumerate(rows) for answer in row.answers]
        batch = QuestionBatch(
            stack_hidden([[row.picture] for row in rows], self.hide)[:, 0],
            ids,
            mask,
            Answers(*self._encode_answers([answer for _, answer, _ in given])),
            torch.tensor([number for number, _, _ in given]),
            torch.tensor([share for *_, share in given]),
        )
        if self.split == "train":
            return batch
        credit = torch.zeros(len(rows), len(self._number))
        for number, answer, share in given:
            credit[number, self._number[answer]] = min(1.0, share / self.least)
        candidates = Answers(*self._encode_answers(self.source.answers))
        return batch._replace(candidates=candidates, credit=credit, kind=tuple(row.kind for row in rows))
