"""Vision towers: timm's vision transformer with a cheap pooled output, or any timm model by name.

Legend: B batch, S image tokens (1 CLS + patches), W width.
"""

import difflib
import itertools
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import timm
import torch
import torch.nn.functional as F
from timm.layers import QuickGELU
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from alignlab.files.kinds import line_of
from alignlab.files.weights import difference, read_file, weights_of
from alignlab.hub.hint import fetch_hint
from alignlab.models.attention import PreNormBlock, is_plain

ACTIVATIONS = {"gelu": nn.GELU, "gelu_tanh": partial(nn.GELU, approximate="tanh"), "quick_gelu": QuickGELU}


class VisionTower(nn.Module):
    """A trunk with two outputs: all tokens after the last norm, or one pooled vector.

    grid: (rows, columns) of patches. width: W of `pooled`, and of `tokens` for transformers.
    """

    def __init__(
        self, trunk: nn.Module, *, grid: tuple[int, int], width: int, gradient_checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.grid = grid
        self.width = width
        self._plain = isinstance(trunk, VisionTransformer) and all(is_plain(block) for block in trunk.blocks)
        for block in trunk.blocks if self._plain else ():
            block.__class__ = PreNormBlock
        if isinstance(trunk, VisionTransformer):
            trunk.register_load_state_dict_pre_hook(_fit_position_embedding)
        self.gradient_checkpointing = gradient_checkpointing

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether activations of the blocks are computed again in the backward pass instead of being kept."""
        return self._checkpointing

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, on: bool) -> None:
        self._checkpointing = on
        if not self._plain and (on or hasattr(self.trunk, "set_grad_checkpointing")):
            self.trunk.set_grad_checkpointing(on)  # timm's nets do it themselves

    def tokens(self, image: Tensor) -> Tensor:
        """Encode to tokens after the final norm, CLS first: (B, 3, H, W) -> (B, S, W). Towers without CLS return
        patches only.
        """
        if not self._plain:
            x = self.trunk.forward_features(image)
            return x.flatten(2).transpose(1, 2) if x.ndim == 4 else x
        trunk = self.trunk
        x = self._embed(image)
        for block in trunk.blocks:
            x = self._run(block, x)
        if trunk.num_reg_tokens:
            x = torch.cat((x[:, :1], x[:, trunk.num_prefix_tokens :]), 1)
        return trunk.norm(x)

    def pooled(self, image: Tensor) -> Tensor:
        """Encode to one vector: (B, 3, H, W) -> (B, W).

        For CLS pooling this is `tokens(image)[:, 0]`, with the last block's query, projection and MLP computed for CLS
        alone.
        """
        trunk = self.trunk
        if not self._plain:
            return trunk.forward_head(trunk.forward_features(image), pre_logits=True)
        if trunk.global_pool != "token":
            return trunk.forward_head(self.tokens(image), pre_logits=True)
        x = self._embed(image)
        for block in trunk.blocks[:-1]:
            x = self._run(block, x)
        x = self._run(trunk.blocks[-1].for_one, x)
        return trunk.norm(x[:, 0])

    forward = pooled

    def _embed(self, image: Tensor) -> Tensor:
        trunk = self.trunk
        return trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(trunk.patch_embed(image))))

    def _run(self, block: Callable[..., Tensor], x: Tensor) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, x, use_reentrant=False)
        return block(x)


class ConvStem(nn.Module):
    """Stride-2 3x3 convolutions with norm and GELU down to the patch grid, then a 1x1 convolution to the width.

    "Early convolutions help transformers see better", arXiv:2106.14881, with GroupNorm of one group in place of
    BatchNorm, so that a picture's embedding doesn't depend on its batch. Takes the place of timm's `PatchEmbed`.
    """

    def __init__(self, img_size: int, patch_size: int, in_chans: int, embed_dim: int, bias: bool = True, **_) -> None:
        super().__init__()
        stages = int(math.log2(patch_size))
        if 2**stages != patch_size or stages < 1:
            raise ValueError(f"patch_size={patch_size} must be a power of two for stem=conv")
        channels = [in_chans] + [max(8, embed_dim >> (stages - i)) for i in range(stages)]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(channels):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.GroupNorm(1, after), nn.GELU()]
        self.convs = nn.Sequential(*layers)
        self.proj = nn.Conv2d(channels[-1], embed_dim, 1, bias=bias)
        self.patch_size = (patch_size, patch_size)
        self.grid_size = (img_size // patch_size, img_size // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(self.convs(image)).flatten(2).transpose(1, 2)


def vision_transformer(
    *,
    image_size: int = 224,
    patch_size: int = 16,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    mlp_ratio: float = 4.0,
    patch_dropout: float = 0.0,
    gradient_checkpointing: bool = False,
    stem: Literal["patch", "conv"] = "patch",
    pool: Literal["cls", "map"] = "cls",
    activation: Literal["gelu", "gelu_tanh", "quick_gelu"] = "gelu",
    pre_norm: bool = False,
    norm_eps: float = 1e-6,
    name: str | None = None,
    pretrained: bool | str = False,
) -> VisionTower:
    """Build a vision tower (arXiv:2010.11929), by sizes or by the name of a timm model.

    With `name`, only image_size, patch_dropout, gradient_checkpointing and pretrained are used besides; the latter
    takes timm's weights, or those of a file. pool: "cls",
    or "map" for SigLIP's attention pooling without CLS token. pre_norm: CLIP's norm before the first block.
    patch_dropout: share of the patches left out in training (arXiv:2212.00794). A checkpoint made at another image
    size fits: its position embedding is resized. Raises ValueError for sizes that don't divide, and for a name that
    timm doesn't know.
    """
    if not 0 <= patch_dropout < 1:
        raise ValueError(f"patch_dropout={patch_dropout} must be at least 0 and below 1")
    if name is not None:
        return _named_tower(name, image_size, patch_dropout, gradient_checkpointing, pretrained)
    if pretrained:
        raise ValueError("pretrained=True needs `name`, the name of a timm model")
    if image_size % patch_size:
        raise ValueError(f"image_size={image_size} must be a multiple of patch_size={patch_size}")
    if width % heads:
        raise ValueError(f"width={width} must be a multiple of heads={heads}")
    trunk = VisionTransformer(
        img_size=image_size,
        patch_size=patch_size,
        num_classes=0,
        class_token=pool == "cls",
        global_pool="token" if pool == "cls" else "map",
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=mlp_ratio,
        patch_drop_rate=patch_dropout,
        pre_norm=pre_norm,
        norm_layer=partial(nn.LayerNorm, eps=norm_eps),
        act_layer=ACTIVATIONS[activation],
        **({"embed_layer": ConvStem} if stem == "conv" else {}),
    )
    return VisionTower(
        trunk, grid=trunk.patch_embed.grid_size, width=width, gradient_checkpointing=gradient_checkpointing
    )


def _named_tower(
    name: str, image_size: int, patch_dropout: float, gradient_checkpointing: bool, pretrained: bool | str
) -> VisionTower:
    if not timm.is_model(name.partition(".")[0]):
        near = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)) or "nothing"
        raise ValueError(f"timm has no model named {name!r}; near it: {near}")
    settings = {"patch_drop_rate": patch_dropout} if patch_dropout else {}
    whole = _pretrained(name, pretrained) if pretrained else None
    try:
        trunk = timm.create_model(name, num_classes=0, img_size=image_size, **settings)
    except TypeError:  # convolutional networks take any image size and no such argument
        trunk = timm.create_model(name, num_classes=0, **settings)
    if isinstance(trunk, VisionTransformer):
        grid = tuple(trunk.patch_embed.grid_size)
    else:
        grid = (math.ceil(image_size / trunk.feature_info[-1]["reduction"]),) * 2
    width = getattr(trunk, "head_hidden_size", trunk.num_features)
    tower = VisionTower(trunk, grid=grid, width=width, gradient_checkpointing=gradient_checkpointing)
    if whole is not None:  # at the size that it was trained for: the tower resizes positions as ALBEF's reference does
        trunk.load_state_dict(whole.state_dict())
    return tower


def _pretrained(name: str, weights: bool | str) -> nn.Module:
    """timm's net with its weights, or a file's, without classes."""
    if isinstance(weights, str):
        _refuse_misfit(name, weights)
    file = {"pretrained_cfg_overlay": {"file": weights}} if isinstance(weights, str) else {}
    try:
        return timm.create_model(name, pretrained=True, num_classes=0, **file)
    except Exception as error:  # of the network, the hub, a model that has no weights
        known = timm.get_pretrained_cfg(name)
        hint = fetch_hint(known.hf_hub_id) if known is not None and known.hf_hub_id and not file else ""
        raise ValueError(f"name={name}: its weights can't be loaded ({line_of(error)}){hint}") from error


def _refuse_misfit(name: str, file: str) -> None:
    """Raises ValueError, one line, for weights under other names: timm would leave its own as they are."""
    try:
        state = weights_of(read_file(Path(file), "pretrained"), Path(file), "pretrained")
    except ValueError as error:
        raise ValueError(f"name={name}: its weights can't be loaded ({error})") from error
    with torch.device("meta"):
        wanted = timm.create_model(name, num_classes=0).state_dict()
    if wanted.keys() - state.keys():
        raise ValueError(f"name={name}: {file} holds other weights: {difference(state, wanted)}")


def resize_position_embedding(embedding: Tensor, grid: tuple[int, int], prefix: int = 1) -> Tensor:
    """Resize a learned position embedding of a square grid bicubically, its first `prefix` entries (CLS) kept.

    (1, prefix + h*h, W) -> (1, prefix + rows*columns, W), as ALBEF's reference does (no antialiasing, corners not
    aligned). Raises ValueError if the old grid isn't square.
    """
    kept, patches = embedding[:, :prefix], embedding[:, prefix:]
    side = math.isqrt(patches.shape[1])
    if side * side != patches.shape[1]:
        raise ValueError(f"cannot resize a position embedding of {patches.shape[1]} patches: not a square grid")
    square = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(square.float(), size=grid, mode="bicubic", align_corners=False).to(embedding.dtype)
    return torch.cat((kept, resized.flatten(2).transpose(1, 2)), 1)


def _fit_position_embedding(trunk: VisionTransformer, state: dict[str, Tensor], prefix: str, *_) -> None:
    key, own = prefix + "pos_embed", trunk.pos_embed
    if own is not None and key in state and state[key].shape != own.shape:
        prefixed = 0 if trunk.no_embed_class else trunk.num_prefix_tokens
        state[key] = resize_position_embedding(state[key], trunk.patch_embed.grid_size, prefixed)
