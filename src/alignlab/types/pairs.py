"""Batches of pictures and captions, and what towers give of them.

Legend: B pictures, N captions, T tokens, D joint embedding, W width, S image tokens (1 CLS + patches), C classes, P
prompts. Masks are boolean, True = keep. Every tensor has its batch dimension first.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor


class Sentences(NamedTuple):
    """Short sentences about pictures, S each, in which a word is marked that only the picture can tell."""

    ids: Tensor  # (B, S, L) int64; L is their own length
    mask: Tensor  # (B, S, L) bool
    telling: Tensor  # (B, S, L) bool, the tokens of that word: at least one where valid
    valid: Tensor  # (B, S) bool, False where a picture has fewer


class Foils(NamedTuple):
    """Captions that are false of their picture by one fact, F each."""

    ids: Tensor  # (B, F, T) int64, as long as the batch's captions
    mask: Tensor  # (B, F, T) bool
    valid: Tensor  # (B, F) bool, False where a picture has fewer


class PairBatch(NamedTuple):
    """Pictures with one caption each.

    Equal `image_id`s mark the same picture and equal `text_id`s the same caption (up to spelling), anywhere in the
    data set: such pairs are positives of each other, never negatives.
    """

    image: Tensor  # (B, 3, H, W) float, normalised
    ids: Tensor  # (B, T) int64
    mask: Tensor  # (B, T) bool
    image_id: Tensor  # (B,) int64, >= 0
    text_id: Tensor  # (B,) int64, >= 0
    sentences: Sentences | None = None  # where the data were asked for them
    foils: Foils | None = None

    def moved(self, device: torch.device) -> "PairBatch":
        """Every tensor on the device; nobody waits for it."""

        def move(part: Tensor | tuple | None) -> Tensor | tuple | None:
            if isinstance(part, tuple):
                return type(part)(*map(move, part))
            return part if part is None else part.to(device, non_blocking=True)

        return PairBatch(*map(move, self))


class PairIds(NamedTuple):
    """Which pictures and captions are the same thing: equal ids, equal things."""

    image: Tensor  # (B,) int64
    text: Tensor  # (B,) int64


class RetrievalBatch(NamedTuple):
    """Pictures with all their captions, for evaluation."""

    image: Tensor  # (B, 3, H, W) float, normalised
    ids: Tensor  # (N, T) int64, captions of these pictures in order, N >= B
    mask: Tensor  # (N, T) bool
    image_of_text: Tensor  # (N,) int64, position of the caption's picture in the *whole* evaluation set
    image_index: Tensor  # (B,) int64, position of the picture in the *whole* evaluation set


class FoilBatch(NamedTuple):
    """Rows of one or two pictures with two captions: caption i is true of picture i and false of the other."""

    image: Tensor  # (B, P, 3, H, W) float, normalised
    ids: Tensor  # (B, 2, T) int64
    mask: Tensor  # (B, 2, T) bool


class ClassificationBatch(NamedTuple):
    """Pictures with class labels."""

    image: Tensor  # (B, 3, H, W) float, normalised
    label: Tensor  # (B,) int64


class Vocabulary(NamedTuple):
    """What a net and a loss need to know about a tokenizer."""

    size: int
    pad_id: int
    cls_id: int
    sep_id: int
    mask_id: int | None  # None: no word can be hidden
    answers: int = 0  # that data of questions have to choose from


class ClassPrompts(NamedTuple):
    """Tokenized prompts of every class: class name set into each template."""

    names: list[str]  # C
    ids: Tensor  # (C, P, T) int64
    mask: Tensor  # (C, P, T) bool


class ZeroShotSet(NamedTuple):
    """One zero-shot classification problem."""

    batches: Iterable  # of ClassificationBatch, already normalised
    prompts: ClassPrompts


class ImageEncoding(NamedTuple):
    """A vision tower's output."""

    features: Tensor  # (B, D), L2-normalised
    tokens: Tensor | None  # (B, S, W) after the last norm, for fusion; None for two-tower models


class TextEncoding(NamedTuple):
    """A text tower's output."""

    features: Tensor  # (N, D), L2-normalised
    tokens: Tensor | None  # (N, T, W) for fusion; None for two-tower models
