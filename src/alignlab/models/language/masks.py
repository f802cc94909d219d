"""Attention masks of transformers' models, made so that nobody asks the device what is in them: the host would wait
for the answer.

Legend: B rows, T tokens. A mask is True where a query sees a key.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


@contextmanager
def one_text_a_row() -> Iterator[None]:
    """Inside, transformers doesn't look at positions for rows of several texts: there are none, or they have a mask
    that says so.

    Without a mask of its own it then leaves causality to the fused kernel, as it does once it has looked.
    """
    from transformers import masking_utils

    name = "find_packed_sequence_indices"
    look = getattr(masking_utils, name, None)
    if look is not None:
        setattr(masking_utils, name, lambda position_ids: None)
    try:
        yield
    finally:
        if look is not None:
            setattr(masking_utils, name, look)


def padding_mask(trunk: nn.Module, mask: Tensor) -> Tensor:
    """What to hand over for rows with padding, mask (B, T) True = token: (B, 1, T, T), which transformers takes as it
    is.

    Where it makes more of a mask than hiding padding and what comes later (attention that isn't sdpa, sliding
    windows), the mask itself as numbers (B, T): it then looks for rows without padding, and waits.
    """
    config = trunk.config
    causal = next((m.is_causal for m in trunk.modules() if isinstance(getattr(m, "is_causal", None), bool)), None)
    kinds = set(getattr(config, "layer_types", None) or ("full_attention",))
    whole = kinds == {"full_attention"} and getattr(config, "sliding_window", None) is None
    if config._attn_implementation != "sdpa" or causal is None or not whole:
        return mask.long()
    keys = mask.bool()[:, None, None, :]
    return keys & _causal(mask) if causal else keys.expand(-1, -1, mask.shape[1], -1)


def _causal(x: Tensor) -> Tensor:
    import torch

    return torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
