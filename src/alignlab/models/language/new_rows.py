"""Rows of a language model's embeddings for tokens that it hasn't known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@torch.no_grad()
def add_rows(model: PreTrainedModel, pieces: Mapping[int, Sequence[int]]) -> None:
    """Gives new ids rows in both embeddings, the mean of the rows of the pieces that each stood for; no other row
    changes.

    pieces: new id -> ids that its text was cut into before. Tables grow where they have no such rows.
    """
    size = max(model.get_input_embeddings().weight.shape[0], max(pieces) + 1)
    if size > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(size, mean_resizing=False)
    head = model.get_output_embeddings()
    tables = [model.get_input_embeddings().weight]
    if head is not None and head.weight.data_ptr() != tables[0].data_ptr():
        tables.append(head.weight)
    if head is not None and getattr(head, "bias", None) is not None:
        tables.append(head.bias)
    for index, parts in pieces.items():
        for table in tables:
            table[index] = table[list(parts)].mean(dim=0)


def rows_by_end(model: nn.Module, ids: Sequence[int]) -> dict[str, list[int]]:
    """Names of the embeddings, one where they are tied -> the rows of them to train, as PEFT takes them."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    tied = ends[1] is None or ends[0].weight is ends[1].weight
    names = {id(module): name for name, module in model.named_modules()}
    return {names[id(end)]: list(ids) for end in ends[: 1 if tied else 2]}
