"""Rows that hold several texts: masks that keep the texts apart in each architecture's own attention, and which
architectures can't keep them apart.

Legend: B rows, T tokens.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

INSTEAD = "use pack=false: rows of one text, batched with texts of like length"


def packed_mask(trunk: nn.Module, document: Tensor) -> Tensor | dict[str, Tensor]:
    """(B, 1, T, T): query t sees key s <= t of the same text and, in layers with a sliding window, t - s < window;
    document (B, T) numbers a row's texts.

    In the form that the model takes: one mask, or one for each kind of layer. Raises ValueError naming the
    architecture where packing isn't exact.
    """
    import torch

    reason = refusal(trunk)
    if reason is not None:
        raise ValueError(f"pack=true: {type(trunk).__name__} {reason}; {INSTEAD}")
    config = trunk.config.get_text_config()
    place = torch.arange(document.shape[1], device=document.device)
    back = place[:, None] - place
    seen = (document[:, None, :, None] == document[:, None, None, :]) & (back >= 0)
    window, kinds = getattr(config, "sliding_window", None), _kinds(config)
    if window is None or kinds == {"full_attention"}:
        return _form(trunk, seen)
    near = _form(trunk, seen & (back < window))
    return {"full_attention": _form(trunk, seen), "sliding_attention": near} if kinds else near


def refusal(trunk: nn.Module) -> str | None:
    """Why an architecture can't keep the texts of a row apart, None if it can."""
    from torch import nn

    config = trunk.config.get_text_config()
    if "position_ids" not in inspect.signature(trunk.forward).parameters or getattr(config, "alibi", False):
        return "counts positions (or a state) through the whole row, so that a text would depend on those before it"
    other = _kinds(config) - {"full_attention", "sliding_attention"}
    if other or any(isinstance(module, nn.Conv1d) for module in trunk.modules()):
        what = ", ".join(sorted(other)) or "convolution or state"
        return f"has layers of {what}, which go through the borders of texts"
    if "sliding_attention" in _kinds(config) and "dict)" not in inspect.getsource(type(trunk).forward):
        return "has layers with a sliding window and takes one mask for all"
    if config._attn_implementation not in ("sdpa", "eager"):
        return f"with attn_implementation={config._attn_implementation} takes no mask of its own for each row"
    return None


def _kinds(config: object) -> set[str]:
    """Kinds of layers by the config; empty where it names none: all are alike."""
    return set(getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or ())


def _form(trunk: nn.Module, seen: Tensor) -> Tensor:
    """Booleans for the fused kernel, else numbers to add."""
    import torch

    if trunk.config.get_text_config()._attn_implementation == "sdpa":
        return seen
    dtype = next(trunk.parameters()).dtype
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)
