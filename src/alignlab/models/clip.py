"""CLIP and SigLIP: two towers, two projections, a temperature (arXiv:2103.00020; arXiv:2303.15343).

Legend: B pictures, N texts, T tokens, D joint embedding.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alignlab.distributed.shards import clamp_parameter
from alignlab.models.text import TextTower
from alignlab.models.vision import VisionTower


class PairEmbeddings(NamedTuple):
    """What a contrastive loss compares. logit = scale * <image, text> + bias."""

    image: Tensor  # (B, D), L2-normalised
    text: Tensor  # (N, D), L2-normalised
    scale: Tensor  # (1,), positive: the inverse of the temperature
    bias: Tensor | None  # (1,), SigLIP only


class Clip(nn.Module):
    """Two towers that map pictures and texts to unit vectors of one space.

    vision: builds a `VisionTower`; text: builds a `TextTower` from `vocab_size`. temperature: start of the learned
    temperature, kept as `logit_scale` = log(1 / temperature); logit_bias: start of SigLIP's learned bias, None = no
    bias. freeze: tower that doesn't learn and stays in eval mode (LiT, arXiv:2111.07991); its projection learns all
    the same. max_scale: limit that `clamp_temperature` enforces. project_image: False where the tower's own vector is
    the picture's, as in the released SigLIP.
    """

    def __init__(
        self,
        vision: Callable[[], VisionTower],
        text: Callable[..., TextTower],
        *,
        vocab_size: int,
        embed_dim: int = 512,
        temperature: float = 0.07,
        max_scale: float = 100.0,
        logit_bias: float | None = None,
        freeze: Literal["none", "image", "text"] = "none",
        projection_bias: bool = False,
        project_image: bool = True,
    ) -> None:
        super().__init__()
        if not 1 / max_scale <= temperature:
            raise ValueError(f"temperature={temperature} must be at least 1/max_scale={1 / max_scale}")
        if freeze not in ("none", "image", "text"):
            raise ValueError(f"freeze={freeze} is none of none, image, text")
        self.vision = vision()
        self.text = text(vocab_size=vocab_size)
        if not project_image and self.vision.width != embed_dim:
            raise ValueError(f"project_image=false needs embed_dim={embed_dim} as wide as vision, {self.vision.width}")
        self.image_projection: nn.Module = nn.Identity()
        if project_image:
            self.image_projection = nn.Linear(self.vision.width, embed_dim, bias=projection_bias)
        self.text_projection = nn.Linear(self.text.width, embed_dim, bias=projection_bias)
        for projection in (self.image_projection, self.text_projection)[not project_image :]:
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)
            if projection_bias:
                nn.init.zeros_(projection.bias)
        # shape (1,), since sharding refuses 0-d parameters
        self.logit_scale = nn.Parameter(torch.tensor([math.log(1 / temperature)]))
        self.register_load_state_dict_pre_hook(_rename_temperature)
        self.logit_bias = None if logit_bias is None else nn.Parameter(torch.tensor([float(logit_bias)]))
        self.max_log_scale = math.log(max_scale)
        self.freeze = freeze
        if self.frozen is not None:
            self.frozen.requires_grad_(False).eval()

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the vision tower's patches."""
        return self.vision.grid

    @property
    def temperature(self) -> Tensor:
        """(1,) what similarities are divided by."""
        return (-self.logit_scale).exp()

    @property
    def scale(self) -> Tensor:
        """(1,) what similarities are multiplied with: 1 / temperature."""
        return self.logit_scale.exp()

    @property
    def frozen(self) -> nn.Module | None:
        """The tower that doesn't learn."""
        return {"image": self.vision, "text": self.text}.get(self.freeze)

    def train(self, mode: bool = True) -> "Clip":
        """Set the mode of everything but a frozen tower, which stays in eval mode."""
        super().train(mode)
        if self.frozen is not None:
            self.frozen.eval()
        return self

    def encode_image(self, image: Tensor) -> Tensor:
        """Embed pictures: (B, 3, H, W) -> (B, D), of length 1, in fp32 at least."""
        return _unit(self.image_projection(self.vision.pooled(image)))

    def encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embed texts: (N, T), (N, T) -> (N, D), of length 1, in fp32 at least."""
        return _unit(self.text_projection(self.text(ids, mask)))

    def forward(self, image: Tensor, ids: Tensor, mask: Tensor) -> PairEmbeddings:
        """Embed a batch of pairs."""
        return PairEmbeddings(self.encode_image(image), self.encode_text(ids, mask), self.scale, self.logit_bias)

    def clamp_temperature(self) -> None:
        """Keep the scale within [1, max_scale]; call it after the optimizer's step. The paper's limit is 100."""
        clamp_parameter(self.logit_scale, 0.0, self.max_log_scale)


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)


def _rename_temperature(module: nn.Module, state: dict[str, Tensor], prefix: str, *_) -> None:
    """Older checkpoints call `logit_scale` temperature."""
    if f"{prefix}temperature" in state:
        state[f"{prefix}logit_scale"] = state.pop(f"{prefix}temperature")
