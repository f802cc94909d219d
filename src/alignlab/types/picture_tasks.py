"""Batches of tasks on pictures with texts.

Legend: B rows, P pictures of a row, T tokens. Masks are boolean, True = keep.
"""

from typing import NamedTuple

from torch import Tensor


class JudgedBatch(NamedTuple):
    """Texts about one or two pictures each, with the class that is right."""

    image: Tensor  # (B, P, 3, H, W) float, normalised
    ids: Tensor  # (B, T) int64
    mask: Tensor  # (B, T) bool
    label: Tensor  # (B,) int64


class Answers(NamedTuple):
    """Answers as texts that begin with [CLS] and end with [SEP], padded on the right."""

    ids: Tensor  # (A, L) int64
    mask: Tensor  # (A, L) bool


class QuestionBatch(NamedTuple):
    """Questions about pictures, what people answered, and where it is measured all answers that there are."""

    image: Tensor  # (B, 3, H, W) float, normalised
    ids: Tensor  # (B, T) int64
    mask: Tensor  # (B, T) bool
    answers: Answers  # A >= B of them, those of a question one after the other
    question: Tensor  # (A,) int64, which question each answers
    weight: Tensor  # (A,) float, what it counts: the share of people who gave it
    candidates: Answers | None = None  # N, the answers to choose from
    credit: Tensor | None = None  # (B, N) float, what each is worth
    kind: tuple[str, ...] | None = None  # B, kinds of question that are counted apart
    listed: Tensor | None = None  # (A,) int64, each answer's place in the data's list; -1 where it isn't there
