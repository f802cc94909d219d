"""What becomes of a CLIP that is fine-tuned for a task: its two vectors, and a head that compares them.

Legend: B rows, P pictures of a row, T tokens of text, D joint embedding, C classes.
"""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from alignlab.models.clip import Clip
from alignlab.types.pairs import ImageEncoding, TextEncoding


class ComparingClassifier(nn.Module):
    """Two linear maps with a ReLU between them on a text's vector y, and of each picture x, x * y and |x - y|
    (arXiv:1705.02364, sec. 3.1): what can be judged without fusion, by one vector for each side.

    The vectors are those of the joint space, with entries of order 1. Temperature and bias of CLIP aren't used, stay
    as they are and aren't trained.
    """

    def __init__(self, clip: Clip, classes: int, pictures: int = 1) -> None:
        super().__init__()
        for key, value, least in (("classes", classes, 2), ("pictures", pictures, 1)):
            if value < least:
                raise ValueError(f"{key}={value} must be at least {least}")
        self.clip, self.pictures = clip, pictures
        for name in ("logit_scale", "logit_bias"):
            if (parameter := getattr(clip, name)) is not None:
                parameter.requires_grad_(False)
        width = clip.text_projection.out_features * (1 + 3 * pictures)
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes))

    def forward(self, image: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, P, 3, H, W), (B, T), (B, T) -> logits (B, C)."""
        y = self.clip.encode_text(ids, mask)
        of_rows = self.clip.encode_image(image.flatten(0, 1)).unflatten(0, image.shape[:2]).unbind(1)
        parts = [part for x in of_rows for part in (x, x * y * y.shape[1] ** 0.5, (x - y).abs())]
        compared = torch.cat([y, *parts], 1) * y.shape[1] ** 0.5
        return self.head(compared.to(self.head[0].weight.dtype))

    def settle(self, loaded: Collection[str]) -> None:
        """Nothing that is new has a model among what was loaded."""

    def encode_image(self, image: Tensor) -> ImageEncoding:
        """(B, 3, H, W) -> features (B, D)."""
        return ImageEncoding(self.clip.encode_image(image), None)

    def encode_text(self, ids: Tensor, mask: Tensor) -> TextEncoding:
        """(B, T), (B, T) -> features (B, D)."""
        return TextEncoding(self.clip.encode_text(ids, mask), None)
