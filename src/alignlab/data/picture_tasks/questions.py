"""Questions about pictures with one or more answers, and batches of them."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from alignlab.data.image_text.batches import fill_gaps
from alignlab.data.image_text.vocabulary import CaptionEncoder
from alignlab.data.picture_tasks.answers import worth_of
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

    def question(self, serial: int, split: str) -> Question | None:
        """Question of "train" or "val"; training ones beyond `num_rows` are those of later epochs. None of a training
        question whose picture is broken and left out.
        """


class QuestionRows(Dataset):
    """Whole batches of a split; held-out ones with all answers and what each is worth.

    An answer is worth what `worth_of` says; one that isn't among those to choose from is worth nothing.
    """

    def __init__(self, source: QuestionSource, split: str, encode: CaptionEncoder, hide: Hidden = "nothing") -> None:
        self.source, self.split, self.encode, self.hide = source, split, encode, hide
        self._encode_answers = with_end(encode)
        self._candidates: Answers | None = None
        self._number = {answer: number for number, answer in enumerate(source.answers)}

    def __len__(self) -> int:
        return self.source.num_rows(self.split)

    def __getitems__(self, serials: Sequence[int]) -> QuestionBatch:
        rows = fill_gaps([self.source.question(serial, self.split) for serial in serials], serials)
        ids, mask = self.encode(["" if self.hide == "texts" else row.text for row in rows])
        given = [(number, *answer) for number, row in enumerate(rows) for answer in row.answers]
        batch = QuestionBatch(
            stack_hidden([[row.picture] for row in rows], self.hide)[:, 0],
            ids,
            mask,
            Answers(*self._encode_answers([answer for _, answer, _ in given])),
            torch.tensor([number for number, _, _ in given]),
            torch.tensor([share for *_, share in given]),
            listed=torch.tensor([self._number.get(answer, -1) for _, answer, _ in given]),
        )
        if self.split == "train":
            return batch
        credit = torch.zeros(len(rows), len(self._number))
        for number, answer, share in given:
            if answer in self._number:
                credit[number, self._number[answer]] = worth_of(share)
        if self._candidates is None:
            self._candidates = Answers(*self._encode_answers(self.source.answers))
        return batch._replace(candidates=self._candidates, credit=credit, kind=tuple(row.kind for row in rows))


def with_end(encode: CaptionEncoder) -> CaptionEncoder:
    """An encoder of answers, which have an end where texts have none."""
    # salesforce/ALBEF b9727e4 dataset/vqa_dataset.py:68
    return encode if encode.recipe.end else CaptionEncoder(encode.tokenizer, encode.context_length, append_sep=True)
