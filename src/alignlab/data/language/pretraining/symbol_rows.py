"""Rows of made-up tasks: a prompt and its answer in a task's own symbols, the answer alone predicted."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from alignlab.data.language.batches import TextRows, TokenStore


class Item(NamedTuple):
    """A question with its answer, as `items.jsonl` has it."""

    id: str
    task: str
    prompt: str
    target: str


def symbol_rows(items: Sequence[Item], tokenizer: PreTrainedTokenizerBase, seed: int, ends: bool = True) -> TextRows:
    """One row an item: the prompt's ids, the answer's, and the end of text where `ends` says so."""
    end = [tokenizer.eos_token_id] * ends
    ids, response, lengths = [], [], []
    for item in items:
        before, after = (tokenizer.encode(text, add_special_tokens=False) for text in (item.prompt, item.target))
        ids += [*before, *after, *end]
        response += [False] * len(before) + [True] * (len(after) + len(end))
        lengths.append(len(before) + len(after) + len(end))
    store = TokenStore.of(np.array(ids, np.int32), np.array(response, np.bool_), np.array(lengths, np.int64))
    return TextRows(store, seed)
