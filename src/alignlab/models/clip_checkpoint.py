"""Weights of transformers' `CLIPModel` and `SiglipModel` for `Clip`.

Legend: W width. Both layouts hold the same numbers; query, key and value of a layer are three matrices there and one
here.
"""

import re
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from alignlab.models.clip import Clip
from alignlab.models.language.pretrained_files import from_folder
from alignlab.models.text import TextTower
from alignlab.models.vision import vision_transformer

_ACTIVATIONS = {"gelu": "gelu", "quick_gelu": "quick_gelu", "gelu_pytorch_tanh": "gelu_tanh"}

# pattern of a name there -> name here; layers and joined matrices are handled by the code below
_NAMES = (
    (r"(text|vision)_model\.encoder\.layers\.(\d+)\.", r"\1.blocks.\2."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"^text_model\.embeddings\.token_embedding\.", "text.token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight", "text.pos_embed"),
    (r"^text_model\.final_layer_norm\.", "text.norm."),
    (r"^(text_model\.head|text_projection)\.", "text_projection."),
    (r"^vision_model\.embeddings\.class_embedding", "vision.cls_token"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "vision.patch_embed.proj."),
    (r"^vision_model\.embeddings\.position_embedding\.weight", "vision.pos_embed"),
    (r"^vision_model\.pre_layrnorm\.", "vision.norm_pre."),
    (r"^vision_model\.post_layernorm\.", "vision.norm."),
    (r"^vision_model\.head\.probe", "vision.attn_pool.latent"),
    (r"^vision_model\.head\.attention\.out_proj\.", "vision.attn_pool.proj."),
    (r"^vision_model\.head\.layernorm\.", "vision.attn_pool.norm."),
    (r"^vision_model\.head\.mlp\.", "vision.attn_pool.mlp."),
    (r"^visual_projection\.", "image_projection."),
    (r"^vision\.", "vision.trunk."),
)


def from_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename and join a `CLIPModel`'s or `SiglipModel`'s tensors (weights, or their gradients) into `Clip`'s layout.

    SigLIP has no image projection and none appears here: `pretrained_clip` sets it to the identity.
    """
    converted = {}
    for name, value in state.items():
        if name.endswith("position_ids") or ".k_proj." in name or ".v_proj." in name:
            continue
        if ".q_proj." in name:
            value = torch.cat([state[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"])
            name = name.replace(".self_attn.q_proj.", ".attn.qkv.")
        if ".head.attention.in_proj_" in name:
            kind = name.rpartition("_")[2]
            width = len(value) // 3
            converted[f"vision.trunk.attn_pool.q.{kind}"] = value[:width]
            converted[f"vision.trunk.attn_pool.kv.{kind}"] = value[width:]
            continue
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        if name == "vision.trunk.cls_token":
            value = value.view(1, 1, -1)
        elif name == "vision.trunk.pos_embed":
            value = value.unsqueeze(0)
        elif name in ("logit_scale", "logit_bias"):
            value = value.view(1)
        converted[name] = value
    return converted


def clip_like(
    config: Any, *, vocab_size: int, image_size: int | None = None, freeze: Literal["none", "image", "text"] = "none"
) -> Clip:
    """Build an untrained `Clip` of the sizes in a transformers `CLIPConfig` or `SiglipConfig`."""
    text, vision, siglip = config.text_config, config.vision_config, config.model_type == "siglip"
    if vocab_size != text.vocab_size:
        raise ValueError(
            f"the data's vocabulary has {vocab_size} tokens, the pretrained net {text.vocab_size}: take its own "
            "tokenizer"
        )
    image_tower = partial(
        vision_transformer,
        image_size=image_size or vision.image_size,
        patch_size=vision.patch_size,
        width=vision.hidden_size,
        depth=vision.num_hidden_layers,
        heads=vision.num_attention_heads,
        mlp_ratio=vision.intermediate_size / vision.hidden_size,
        pool="map" if siglip else "cls",
        activation=_ACTIVATIONS[vision.hidden_act],
        pre_norm=not siglip,
        norm_eps=vision.layer_norm_eps,
    )
    text_tower = partial(
        TextTower,
        context_length=text.max_position_embeddings,
        width=text.hidden_size,
        depth=text.num_hidden_layers,
        heads=text.num_attention_heads,
        mlp_ratio=text.intermediate_size / text.hidden_size,
        causal=not siglip,
        activation=_ACTIVATIONS[text.hidden_act],
        norm_eps=text.layer_norm_eps,
    )
    return Clip(
        image_tower,
        text_tower,
        vocab_size=vocab_size,
        embed_dim=text.projection_size if siglip else config.projection_dim,
        logit_bias=-10.0 if siglip else None,
        projection_bias=siglip,
        max_scale=1000.0 if siglip else 100.0,
        freeze=freeze,
    )


def pretrained_clip(
    name: str, *, vocab_size: int, image_size: int | None = None, freeze: Literal["none", "image", "text"] = "none"
) -> Clip:
    """Load a pretrained CLIP or SigLIP by hub id or folder; another image size resizes the position embedding.

    SigLIP reads padding like any token: give it texts padded to its context length with a mask of ones.
    Raises ValueError if the data's vocabulary isn't the net's.
    """
    from transformers import AutoModel

    try:
        source = from_folder(AutoModel, name)
    except ValueError as error:
        raise ValueError(f"name={name}: no CLIP or SigLIP could be read ({error})") from error
    net = clip_like(source.config, vocab_size=vocab_size, image_size=image_size, freeze=freeze)
    load_transformers(net, source.state_dict())
    return net


def load_transformers(net: Clip, state: dict[str, Tensor]) -> None:
    """Copy a `CLIPModel`'s or `SiglipModel`'s weights into a net of the same sizes, every one of them."""
    weights = from_transformers(state)
    if "image_projection.weight" not in weights:
        width = net.image_projection.in_features
        weights |= {"image_projection.weight": torch.eye(width), "image_projection.bias": torch.zeros(width)}
    net.load_state_dict(weights)
