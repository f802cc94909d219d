"""Batches and outputs that travel between data, systems and evaluation.

Legend: B pictures or rows of text, N captions, T tokens, D joint embedding, W width, S image tokens (1 CLS + patches), C classes, P prompts or pairs.
Masks are boolean, True = keep. Every tensor has its batch dimension first.
"""

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor


class PairBatch(NamedTuple):
    """Pictures with one caption each.

    Equal `image_id`s mark the same picture and equal `text_id`s the same caption (up to spelling), anywhere in the data set:
    such pairs are positives of each other, never negatives.
    """

    image: Tensor  # (B, 3, H, W) float, normalised
    ids: Tensor  # (B, T) int64
    mask: Tensor  # (B, T) bool
    image_id: Tensor  # (B,) int64, >= 0
    text_id: Tensor  # (B,) int64, >= 0


class RetrievalBatch(NamedTuple):
    """Pictures with all their captions, for evaluation."""

    image: Tensor  # (B, 3, H, W) float, normalised
    ids: Tensor  # (N, T) int64, captions of these pictures in order, N >= B
    mask: Tensor  # (N, T) bool
    image_of_text: Tensor  # (N,) int64, position of the caption's picture in the *whole* evaluation set
    image_index: Tensor  # (B,) int64, position of the picture in the *whole* evaluation set


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
    mask_id: int


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


class LanguageVocabulary(NamedTuple):
    """What a language model's system needs to know about its tokenizer; padding may equal the end: masks come from lengths."""

    size: int
    pad_id: int
    bos_id: int | None
    eos_id: int


class TokenBatch(NamedTuple):
    """Texts for next-token prediction, padded on the right; a row may hold several texts (packing), told apart by `document`."""

    ids: Tensor  # (B, T) int64
    document: Tensor  # (B, T) int64, number of the text within its row from 1 on, 0 = padding
    position: Tensor  # (B, T) int64, from 0 on in every text
    target: (
        Tensor  # (M,) int64, places in the flattened (B * T) of the tokens to predict, each from what stands before it
    )
    packed: bool  # whether a row holds several texts


class PreferenceBatch(NamedTuple):
    """Compared texts, padded on the right. Two of them make a pair; one text may stand in several pairs (arXiv:2203.02155, sec. 3.5)."""

    ids: Tensor  # (B, T) int64
    mask: Tensor  # (B, T) bool
    target: Tensor  # (M,) int64, places in the flattened (B * T) of the responses' tokens, ends included, texts' first tokens not
    first: Tensor  # (P,) int64, row of the preferred text of each pair
    second: Tensor  # (P,) int64, row of the other one
    share: Tensor  # (P,) float, share of raters that prefers the first: 1 where nobody counted
    margin: Tensor  # (P,) float, difference of the ratings, 0 where unknown
    index: Tensor  # (B,) int64, number of the text in its set
    numbers: tuple[int, ...] | None = None  # `index` again, on the host wherever the batch is


class RatedBatch(NamedTuple):
    """Single texts of a set with human ratings, for exact statistics over all their pairs. Padded on the right."""

    ids: Tensor  # (B, T) int64
    mask: Tensor  # (B, T) bool
    index: Tensor  # (B,) int64, number of the text in the set


class PromptBatch(NamedTuple):
    """Prompts to answer, padded on the left."""

    ids: Tensor  # (B, T) int64
    mask: Tensor  # (B, T) bool
    index: Tensor  # (B,) int64, number of the prompt in its set
    content: list | None = (
        None  # B, each prompt before it was rendered: a text, or a chat as messages; None where nobody knows
    )
