"""Batches of text for language models.

Legend: B rows of text, T tokens, M predicted tokens, P pairs.
Masks are boolean, True = keep. Every tensor has its batch dimension first.
"""

from typing import NamedTuple

from torch import Tensor


class LanguageVocabulary(NamedTuple):
    """What a language model's system needs to know about its tokenizer; padding may equal the end: masks come from
    lengths.
    """

    size: int
    pad_id: int
    bos_id: int | None
    eos_id: int
    added: tuple[tuple[int, ...], ...] = ()  # of each of the last ids, if they are new: what its text was cut into

    @property
    def new_ids(self) -> dict[int, tuple[int, ...]]:
        """The ids that were added to the tokenizer, with the pieces that each stood for."""
        return dict(enumerate(self.added, self.size - len(self.added)))


class Sources(NamedTuple):
    """Where the rows of a batch come from, if they come from several places."""

    number: Tensor  # (B,) int64, which of `names`
    names: tuple[str, ...]


class TokenBatch(NamedTuple):
    """Texts for next-token prediction, padded on the right; a row may hold several texts (packing), told apart by
    `document`.
    """

    ids: Tensor  # (B, T) int64
    document: Tensor  # (B, T) int64, number of the text within its row from 1 on, 0 = padding
    position: Tensor  # (B, T) int64, from 0 on in every text
    target: (
        Tensor  # (M,) int64, places in the flattened (B * T) of the tokens to predict, each from what stands before it
    )
    packed: bool  # whether a row holds several texts
    sources: Sources | None = None  # of a mixture


class PreferenceBatch(NamedTuple):
    """Compared texts, padded on the right.

    Two of them make a pair; one text may stand in several pairs (arXiv:2203.02155, sec. 3.5).
    """

    ids: Tensor  # (B, T) int64
    mask: Tensor  # (B, T) bool
    # (M,) int64, places in the flattened (B * T) of the responses' tokens, ends included, texts' first tokens not
    target: Tensor
    first: Tensor  # (P,) int64, row of the preferred text of each pair
    second: Tensor  # (P,) int64, row of the other one
    share: Tensor  # (P,) float, share of raters that prefers the first: 1 where nobody counted
    margin: Tensor  # (P,) float, difference of the ratings, 0 where unknown
    index: Tensor  # (B,) int64, number of the text in its set
    numbers: tuple[int, ...] | None = None  # `index` again, on the host wherever the batch is
    sources: Sources | None = None  # of a mixture


class LabelledBatch(NamedTuple):
    """Texts that people call good or bad, padded on the right, and each prompt with the response of another row."""

    ids: Tensor  # (B, T) int64
    mask: Tensor  # (B, T) bool
    target: Tensor  # (M,) int64, places in the flattened (B * T) of the responses' tokens, texts' first ones left out
    label: Tensor  # (B,) bool, True: good
    index: Tensor  # (B,) int64, number of the text in its set
    other_ids: Tensor  # (B, T') int64, the prompt of each row and the response of the row before it
    other_target: Tensor  # (M',) int64, of the responses in these
    sources: Sources | None = None  # of a mixture


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
    rows: list | None = None  # B, the other columns of each prompt's row, by name: what a reward may ask for
    sources: Sources | None = None  # of a mixture
