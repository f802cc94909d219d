"""Bases whose weights bitsandbytes holds in 8 or 4 bits."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

Dtype = Literal["float32", "bfloat16"]
Quantization = Literal["int8", "llm_int8", "nf4"]
PACKED = {"Linear8bitLt": "llm_int8", "Linear4bit": "nf4"}  # bitsandbytes' layers, which peft's on top are named after


def packed(model: nn.Module) -> Literal["llm_int8", "nf4"] | None:
    """How bitsandbytes quantised a model, adapters on top or not; None where it didn't."""
    return next((kind for module in model.modules() if (kind := PACKED.get(type(module).__name__))), None)


def quantization_config(quantization: Quantization, dtype: Dtype) -> object:
    """What `from_pretrained` takes. Raises ValueError naming the extra if the package is missing."""
    import torch

    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(f"quantization={quantization} needs bitsandbytes: pip install 'alignlab[quantization]'")
    from transformers import BitsAndBytesConfig

    if quantization == "llm_int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bitquant_type="nf4", bnb_4bit_compute_dtype=getattr(torch, dtype))


def settle(model: PreTrainedModel) -> None:
    """Lets go of the file that a quantised model was mapped from, which the embedding alone would keep in memory;
    keeps 4-bit weights out of checkpoints.
    """
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.clone()
    for module in model.modules():
        if PACKED.get(type(module).__name__) == "nf4":
            module.register_state_dict_post_hook(_leave_weight_out)
            module.register_load_state_dict_pre_hook(_keep_weight)


def _leave_weight_out(module: nn.Module, state: dict, prefix: str, metadata: dict) -> None:
    """Weights in 4 bits are made from the base again: bitsandbytes saves them with their scales, but can't load those
    by name.
    """
    for name in [name for name in state if name.startswith(prefix + "weight")]:
        del state[name]


def _keep_weight(module: nn.Module, state: dict, prefix: str, *_: object) -> None:
    """The counterpart of `_leave_weight_out`."""
    state[prefix + "weight"] = module.weight.data
