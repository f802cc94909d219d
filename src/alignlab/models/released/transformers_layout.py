"""transformers' `CLIPModel` and `SiglipModel`: sizes, names of weights there and here.

Both layouts hold the same numbers; query, key and value of a layer are three matrices there and one here.
Legend: W width.
"""

import re
from typing import Any

import torch
from torch import Tensor

from alignlab.models.clip import Clip
from alignlab.models.released.sizes import Activation, ClipSizes, TowerSizes

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "quick_gelu": "quick_gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}

# pattern of a name there -> name here; layers and joined matrices are handled by the code below
_NAMES = (
    (r"(text|vision)_model\.encoder\.layers\.(\d+)\.", r"\1.blocks.\2."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"\.self_attn\.[qkv]_proj\.", ".attn.qkv."),
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

_POOLING = ".head.attention.in_proj_"  # query, key and value in one matrix there, in two here


def sizes_of(config: Any) -> ClipSizes:
    """The sizes in a `CLIPConfig` or `SiglipConfig`. Raises ValueError for an activation that isn't known here."""
    text, vision, siglip = config.text_config, config.vision_config, config.model_type == "siglip"
    return ClipSizes(
        vision=_tower(vision),
        text=_tower(text),
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        context_length=text.max_position_embeddings,
        vocab_size=text.vocab_size,
        embed_dim=text.projection_size if siglip else config.projection_dim,
        siglip=siglip,
    )


def _tower(config: Any) -> TowerSizes:
    if config.hidden_act not in ACTIVATIONS:
        raise ValueError(f"hidden_act={config.hidden_act} is none of {', '.join(ACTIVATIONS)}")
    return TowerSizes(
        config.hidden_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.intermediate_size,
        ACTIVATIONS[config.hidden_act],
        config.layer_norm_eps,
    )


def from_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename and join a `CLIPModel`'s or `SiglipModel`'s tensors (weights, or their gradients) into `Clip`'s layout."""
    converted = {}
    for name, value in state.items():
        if name.endswith("position_ids") or ".k_proj." in name or ".v_proj." in name:
            continue
        here = _renamed(name)
        if ".q_proj." in name:
            value = torch.cat([state[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"])
        elif _POOLING in name:
            kind = name.rpartition("_")[2]
            width = len(value) // 3
            converted[f"vision.trunk.attn_pool.q.{kind}"] = value[:width]
            converted[f"vision.trunk.attn_pool.kv.{kind}"] = value[width:]
            continue
        elif here == "vision.trunk.cls_token":
            value = value.view(1, 1, -1)
        elif here == "vision.trunk.pos_embed":
            value = value.unsqueeze(0)
        elif here in ("logit_scale", "logit_bias"):
            value = value.view(1)
        converted[here] = value
    return converted


def to_transformers(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """`Clip`'s weights under the names and in the shapes of a state dict `wanted` of a `CLIPModel` or `SiglipModel`:
    the way of `from_transformers` back, number for number.
    """
    converted = {}
    for name, value in wanted.items():
        here = _renamed(name)
        if name.endswith("position_ids"):
            converted[name] = value
            continue
        if _POOLING in name:
            kind = name.rpartition("_")[2]
            ours = torch.cat([state[f"vision.trunk.attn_pool.{part}.{kind}"] for part in ("q", "kv")])
        elif match := re.search(r"\.([qkv])_proj\.", name):
            ours = state[here].chunk(3)["qkv".index(match[1])]
        else:
            ours = state[here]
        converted[name] = ours.reshape(value.shape).clone()
    return converted


def _renamed(name: str) -> str:
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def load_transformers(net: Clip, state: dict[str, Tensor]) -> None:
    """Copy a `CLIPModel`'s or `SiglipModel`'s weights into a net of the same sizes, every one of them."""
    net.load_state_dict(from_transformers(state))
