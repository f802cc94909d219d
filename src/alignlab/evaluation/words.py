"""Which tokens of a caption make a word."""

import re
from typing import Any

import torch
from torch import Tensor

Span = tuple[int, int]  # first character, one past the last
FUNCTION_WORDS = frozenset(
    "a an the this that these those his her its their and or of on in at to from with without by for is are be was "
    "were"
    " it there two three left right above over below under between next beside background".split()
)


def content_words(caption: str, limit: int | None = None) -> list[Span]:
    """Words that name something, each once, at most `limit` of them; all words if there are only small ones."""
    words: dict[str, Span] = {}
    for match in re.finditer(r"[^\W_]+(?:['’-][^\W_]+)*", caption):
        words.setdefault(match.group().lower(), match.span())
    naming = [span for word, span in words.items() if word not in FUNCTION_WORDS]
    return (naming or list(words.values()))[:limit]


def tokens_of(tokenizer: Any, caption: str, span: Span, ids: Tensor) -> Tensor:
    """Tokens of `ids` (T,) that hold characters of a span, as (T,) bool; none where the caption was cut before it.

    `tokenizer` is a fast tokenizer of transformers; ids are a start token and then the caption's.
    """
    encoding = tokenizer(caption, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    chosen = torch.zeros(len(ids), dtype=torch.bool)
    for place, (start, end) in enumerate(encoding["offset_mapping"], start=1):
        if place < len(ids) and start < span[1] and end > span[0]:
            chosen[place] = int(ids[place]) == encoding["input_ids"][place - 1]  # false at padding and separator
    return chosen
