"""The parts of a language model that training needs one by one: hidden states and what makes logits of them.

Legend: B rows, T tokens, W width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from alignlab.models.language.decoder.net import Decoder
from alignlab.models.language.masks import one_text_a_row, padding_mask
from alignlab.models.language.packing import packed_mask

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


def trunk_of(model: nn.Module) -> nn.Module:
    """What gives hidden states: the model without its head; adapters stay in it."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    return model.base_model if hasattr(model, "base_model") else model


def hidden_states(
    model: nn.Module,
    ids: Tensor,
    mask: Tensor | None = None,
    *,
    document: Tensor | None = None,
    position: Tensor | None = None,
) -> Tensor:
    """Last hidden states (B, T, W) after the final norm.

    mask (B, T) True = token; it may be left out for rows padded on the right: causal attention never looks there. With
    `document` (B, T), rows hold several texts, which don't see each other, and `position` (B, T) is counted from 0 in
    each; ValueError for models that can't keep them apart.
    """
    if isinstance(model, Decoder):
        apart = mask.long() if document is None and mask is not None else document
        return model(ids, document=apart, position=position).hidden
    trunk, extra = trunk_of(model), {"position_ids": position} if position is not None else {}
    if document is not None:
        attention = packed_mask(trunk, document)
    else:  # places that are given can be had without the mask; some models count them by it
        attention = None if mask is None else padding_mask(trunk, mask) if position is not None else mask.long()
    with one_text_a_row():
        return trunk(ids, attention_mask=attention, use_cache=False, **extra).last_hidden_state


def head_of(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Hidden states (..., W) -> logits (..., V), with the scaling or capping that the architecture puts behind its
    head.
    """
    import torch

    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    head, config = model.get_output_embeddings(), model.config
    scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    if scale == 1.0 and cap is None:
        return head

    def logits(hidden: Tensor) -> Tensor:
        scaled = head(hidden) * scale
        return cap * torch.tanh(scaled / cap) if cap is not None else scaled

    return logits


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Recompute layers in the backward pass; transformers renamed the method in 5.23."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
