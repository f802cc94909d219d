"""open_clip's and OpenAI's CLIP with a ViT: sizes, names of weights there and here.

Both layouts hold the same numbers; the projections are transposed. Legend: W width, D joint embedding.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from alignlab.files.kinds import few
from alignlab.models.released.sizes import ClipSizes, TowerSizes

_HEAD = 64  # width of an attention head where a config doesn't say
_EPS = 1e-5
# What a config may say beside the sizes without changing what is computed here.
_KNOWN = {
    "model": {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_scale"},
    "vision": {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio", "patch_dropout"},
    "text": {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "pad_id", "eos_id"},
}
_HARMLESS = {"pool_type": ("tok", "argmax"), "proj_type": ("linear",), "pos_embed_type": ("learnable",)}
_NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask", "text.attn_mask")


def sizes_of_config(config: Mapping[str, Any]) -> ClipSizes:
    """The sizes in the `model_cfg` of an open_clip_config.json.

    Raises ValueError for what it has that `Clip` hasn't.
    """
    vision, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
    strange = [
        f"{part}.{key}={value}"
        for part, settings in (("model", config), ("vision", vision), ("text", text))
        for key, value in settings.items()
        if key not in _KNOWN[part] and value not in (None, False, *_HARMLESS.get(key, ()))
    ]
    if strange:
        raise ValueError(f"its net has what isn't read here: {few(strange)}; take it in transformers' format")
    activation = "quick_gelu" if config.get("quick_gelu") else "gelu"
    width, size, patch = vision.get("width", 768), vision.get("image_size", 224), vision.get("patch_size", 16)
    if not isinstance(size, int) or not isinstance(vision.get("layers", 12), int):
        raise ValueError("its vision tower isn't a ViT for square pictures; take another model")
    text_width = text.get("width", 512)
    return ClipSizes(
        vision=TowerSizes(
            width,
            vision.get("layers", 12),
            width // vision.get("head_width", _HEAD),
            round(width * vision.get("mlp_ratio", 4.0)),
            activation,
            _EPS,
        ),
        text=TowerSizes(
            text_width,
            text.get("layers", 12),
            text.get("heads", 8),
            round(text_width * text.get("mlp_ratio", 4.0)),
            activation,
            _EPS,
        ),
        image_size=size,
        patch_size=patch,
        context_length=text.get("context_length", 77),
        vocab_size=text.get("vocab_size", 49408),
        embed_dim=config["embed_dim"],
    )


def sizes_of_weights(state: Mapping[str, Tensor]) -> ClipSizes:
    """The sizes of OpenAI's weights, which have heads of 64 and x sigmoid(1.702 x).

    Raises ValueError for another net than a CLIP with a ViT.
    """
    if "visual.layer1.0.conv1.weight" in state:
        raise ValueError("its vision tower is OpenAI's ResNet, which isn't read here; take one with a ViT")
    if "visual.conv1.weight" not in state or "positional_embedding" not in state:
        raise ValueError("these are no weights of OpenAI's CLIP")
    width, _, _, patch = state["visual.conv1.weight"].shape
    text_width = len(state["ln_final.weight"])
    side = round((len(state["visual.positional_embedding"]) - 1) ** 0.5)
    layers = {
        tower: len({name.split(".resblocks.")[1].split(".")[0] for name in state if name.startswith(f"{tower}.res")})
        for tower in ("visual.transformer", "transformer")
    }
    towers = [
        TowerSizes(w, depth, max(1, w // _HEAD), len(state[f"{tower}.resblocks.0.mlp.c_fc.bias"]), "quick_gelu", _EPS)
        for w, (tower, depth) in zip((width, text_width), layers.items(), strict=True)
    ]
    return ClipSizes(
        *towers,
        image_size=side * patch,
        patch_size=patch,
        context_length=len(state["positional_embedding"]),
        vocab_size=len(state["token_embedding.weight"]),
        embed_dim=state["text_projection"].shape[1],
    )


def from_open_clip(state: Mapping[str, Tensor], sizes: ClipSizes) -> dict[str, Tensor]:
    """`Clip`'s weights, in fp32 (OpenAI's come in fp16). Raises ValueError for what is missing or left over."""
    plain = {name.removeprefix("text."): value for name, value in state.items() if name not in _NO_WEIGHTS}
    names = dict(_names(sizes))
    missing = [name for name in names.values() if name not in plain]
    extra = [name for name in plain if name not in set(names.values())]
    if missing or extra:
        said = [f"{what}: {few(which)}" for what, which in (("missing", missing), ("left over", extra)) if which]
        raise ValueError(f"its tensors don't belong to its sizes; {'; '.join(said)}")
    return {here: _turned(here, plain[there]).float() for here, there in names.items()}


def to_open_clip(state: Mapping[str, Tensor], sizes: ClipSizes, *, custom_text: bool = False) -> dict[str, Tensor]:
    """The way of `from_open_clip` back, number for number. custom_text: names of the text tower begin with `text.`."""
    converted = {}
    for here, there in _names(sizes):
        text = custom_text and not there.startswith(("visual.", "logit_"))
        value = state[here]
        if there in ("visual.class_embedding", "visual.positional_embedding", "logit_scale"):
            value = value[0] if value.ndim < 3 or there.endswith("positional_embedding") else value[0, 0]
        else:
            value = _turned(here, value)
        converted[f"text.{there}" if text else there] = value.clone().contiguous()
    return converted


def _turned(here: str, value: Tensor) -> Tensor:
    if here in ("image_projection.weight", "text_projection.weight"):
        return value.T.contiguous()
    if here == "vision.trunk.cls_token":
        return value.view(1, 1, -1)
    if here == "vision.trunk.pos_embed":
        return value.unsqueeze(0)
    return value.view(1) if here == "logit_scale" else value


def _names(sizes: ClipSizes) -> Iterator[tuple[str, str]]:
    """Name here, name there."""
    for here, there in (
        ("vision.trunk.cls_token", "visual.class_embedding"),
        ("vision.trunk.pos_embed", "visual.positional_embedding"),
        ("vision.trunk.patch_embed.proj.weight", "visual.conv1.weight"),
        ("image_projection.weight", "visual.proj"),
        ("text.token_embedding.weight", "token_embedding.weight"),
        ("text.pos_embed", "positional_embedding"),
        ("text_projection.weight", "text_projection"),
        ("logit_scale", "logit_scale"),
    ):
        yield here, there
    norms = {"vision.trunk.norm_pre": "visual.ln_pre", "vision.trunk.norm": "visual.ln_post", "text.norm": "ln_final"}
    parts = dict(norms)
    for here, there, depth in (
        ("vision.trunk", "visual.transformer", sizes.vision.depth),
        ("text", "transformer", sizes.text.depth),
    ):
        for number in range(depth):
            one, other = f"{here}.blocks.{number}", f"{there}.resblocks.{number}"
            for kind in ("weight", "bias"):
                yield f"{one}.attn.qkv.{kind}", f"{other}.attn.in_proj_{kind}"
            parts |= {
                f"{one}.{ours}": f"{other}.{theirs}"
                for ours, theirs in (
                    ("attn.proj", "attn.out_proj"),
                    ("norm1", "ln_1"),
                    ("norm2", "ln_2"),
                    ("mlp.fc1", "mlp.c_fc"),
                    ("mlp.fc2", "mlp.c_proj"),
                )
            }
    for here, there in parts.items():
        for kind in ("weight", "bias"):
            yield f"{here}.{kind}", f"{there}.{kind}"


def config_of(sizes: ClipSizes) -> dict[str, Any]:
    """The `model_cfg` of an open_clip_config.json. Raises ValueError for sizes that open_clip's CLIP can't have."""
    vision, text = sizes.vision, sizes.text
    if (
        sizes.siglip
        or {vision.activation, text.activation} - {"gelu", "quick_gelu"}
        or (vision.activation != text.activation)
    ):
        raise ValueError(
            "open_clip's CLIP has a CLS token and one of gelu and quick_gelu; export this net to transformers"
        )
    if (vision.norm_eps, text.norm_eps) != (_EPS, _EPS):
        raise ValueError(
            f"open_clip's norms have eps {_EPS}; this net has {vision.norm_eps}: export it to transformers"
        )
    return {
        "embed_dim": sizes.embed_dim,
        "quick_gelu": vision.activation == "quick_gelu",
        "vision_cfg": {
            "image_size": sizes.image_size,
            "layers": vision.depth,
            "width": vision.width,
            "head_width": vision.width // vision.heads,
            "mlp_ratio": vision.inner / vision.width,
            "patch_size": sizes.patch_size,
        },
        "text_cfg": {
            "context_length": sizes.context_length,
            "vocab_size": sizes.vocab_size,
            "width": text.width,
            "heads": text.heads,
            "layers": text.depth,
            "mlp_ratio": text.inner / text.width,
        },
    }
