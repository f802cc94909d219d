"""BERT's weights as the start of ALBEF's text and fusion layers (arXiv:2107.07651, sec. 3.1: the first and the last of
its layers).
"""

import torch
from torch import nn

from alignlab.hub.hint import fetch_hint
from alignlab.models.albef_checkpoint import bert_names


def load_bert(encoder: nn.Module, name: str) -> None:
    """Gives an `AlbefEncoder` the weights of a BERT with its language head; cross-attention begins anew.

    Args:
        name: hub id or folder.

    Raises:
        ValueError: it can't be loaded, or has other sizes.
    """
    from transformers import BertForMaskedLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        bert = BertForMaskedLM.from_pretrained(name, dtype=torch.float32).state_dict()
    except Exception as error:  # of the network, the hub, and whatever a damaged folder makes of the readers
        reason = next((line.strip() for line in str(error).split("\n") if line.strip()), type(error).__name__)
        raise ValueError(f"text_weights={name}: no BERT could be loaded ({reason}){fetch_hint(name)}") from error
    own, weights = encoder.state_dict(), {"language_head.bias": bert["cls.predictions.bias"]}
    for ours, parts in bert_names(len(encoder.text), len(encoder.fusion)):
        for kind in ("weight", "bias"):
            stack = [bert[f"{part}.{kind}"] for part in parts if f"{part}.{kind}" in bert]
            if stack:
                weights[f"{ours}.{kind}"] = torch.cat(stack)
    sizes = [
        f"{key} {tuple(value.shape)} instead of {tuple(own[key].shape)}"
        for key, value in weights.items()
        if value.shape != own[key].shape
    ]
    layers = len({key.split(".")[3] for key in bert if key.startswith("bert.encoder.layer.")})
    if layers != len(encoder.text) + len(encoder.fusion):
        sizes.insert(0, f"{layers} layers instead of {len(encoder.text) + len(encoder.fusion)}")
    if sizes:
        raise ValueError(f"text_weights={name} has other sizes than this net: {', '.join(sizes[:3])}")
    encoder.load_state_dict(weights, strict=False)
