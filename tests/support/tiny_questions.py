"""Questions about pictures at a size of milliseconds."""

from alignlab.types.picture_tasks import Answers, QuestionBatch
from tiny_tasks import judged
from tiny_training import WORDS

import torch

N = 9  # candidates


def texts(number: int, length: int, seed: int) -> Answers:
    """[CLS], one word or more, [SEP], padding."""
    g = torch.Generator().manual_seed(seed)
    words = torch.randint(1, length - 1, (number, 1), generator=g)
    ids, place = torch.randint(4, WORDS.size, (number, length), generator=g), torch.arange(length)
    ids = ids.masked_fill(place == 0, WORDS.cls_id).masked_fill(place == words + 1, WORDS.sep_id)
    return Answers(ids.masked_fill(place > words + 1, WORDS.pad_id), place <= words + 1)


def asked(size: int = 8) -> QuestionBatch:
    """Random questions, of which the second has two answers, with all candidates."""
    rows, g = judged(size), torch.Generator().manual_seed(3)
    question = torch.tensor([0, 1, *range(1, size)])
    credit = torch.nn.functional.one_hot(torch.randint(N, (size,), generator=g), N).float()
    weight = torch.ones(size + 1).index_fill(0, torch.tensor([1, 2]), 0.5)
    kind = tuple("ab"[number % 2] for number in range(size))
    listed = torch.randint(N, (size + 1,), generator=g)
    return QuestionBatch(
        rows.image[:, 0], *rows[1:3], texts(size + 1, 5, 1), question, weight, texts(N, 5, 2), credit, kind, listed
    )


def cut(batch: QuestionBatch, part: slice) -> QuestionBatch:
    """Some of the questions with their answers."""
    own = (batch.question >= part.start) & (batch.question < part.stop)
    answers = Answers(*(x[own] for x in batch.answers))
    rows, asks = (x[part] for x in batch[:3]), batch.question[own] - part.start
    return QuestionBatch(*rows, answers, asks, batch.weight[own], listed=batch.listed[own])
