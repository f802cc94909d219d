"""A released CLIP or SigLIP in numbers, and the untrained net of these numbers."""

from functools import partial
from typing import Literal, NamedTuple

from alignlab.models.clip import Clip
from alignlab.models.text import TextTower
from alignlab.models.vision import vision_transformer

Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]


class TowerSizes(NamedTuple):
    """Of the transformer of one tower."""

    width: int
    depth: int
    heads: int
    inner: int  # width of the MLP
    activation: Activation
    norm_eps: float


class ClipSizes(NamedTuple):
    """Of a whole net."""

    vision: TowerSizes
    text: TowerSizes
    image_size: int
    patch_size: int
    context_length: int
    vocab_size: int
    embed_dim: int
    siglip: bool = False  # attention pooling, no projection of pictures, texts seen both ways, a bias


def untrained(
    sizes: ClipSizes,
    *,
    vocab_size: int,
    image_size: int | None = None,
    freeze: Literal["none", "image", "text"] = "none",
    patch_dropout: float = 0.0,
) -> Clip:
    """The net of these sizes, with random weights.

    image_size: another one than the released net's. Raises ValueError if the data's vocabulary isn't the net's.
    """
    vision, text, siglip = sizes.vision, sizes.text, sizes.siglip
    if vocab_size != sizes.vocab_size:
        raise ValueError(
            f"the data's vocabulary has {vocab_size} tokens, the pretrained net {sizes.vocab_size}: take its own "
            "tokenizer"
        )
    image_tower = partial(
        vision_transformer,
        image_size=image_size or sizes.image_size,
        patch_size=sizes.patch_size,
        pool="map" if siglip else "cls",
        pre_norm=not siglip,
        patch_dropout=patch_dropout,
        **_of_tower(vision),
    )
    text_tower = partial(TextTower, context_length=sizes.context_length, causal=not siglip, **_of_tower(text))
    return Clip(
        image_tower,
        text_tower,
        vocab_size=vocab_size,
        embed_dim=sizes.embed_dim,
        logit_bias=-10.0 if siglip else None,
        project_image=not siglip,
        projection_bias=siglip,
        max_scale=1000.0 if siglip else 100.0,
        freeze=freeze,
    )


def _of_tower(sizes: TowerSizes) -> dict[str, object]:
    return {
        "width": sizes.width,
        "depth": sizes.depth,
        "heads": sizes.heads,
        "mlp_ratio": sizes.inner / sizes.width,
        "activation": sizes.activation,
        "norm_eps": sizes.norm_eps,
    }
