"""What tells the fusion encoder which patch a word is about, and where patches lie.

Legend: R rows (texts), T tokens, P pictures, S image tokens (1 CLS + patches), W widths, K dimension of comparison.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LateInteraction(nn.Module):
    """A space in which words and patches are compared one by one (FILIP, arXiv:2111.07783, sec. 3.1).

    affinity: what the likeness of a word and a patch is multiplied with where it enters the first cross-attention's
    logits; it is learned on from there.
    """

    def __init__(self, text_width: int, image_width: int, dim: int, affinity: float) -> None:
        super().__init__()
        if affinity <= 0.0:
            raise ValueError(f"affinity={affinity} must be above 0: it is learned as a logarithm")
        self.word, self.patch = nn.Linear(text_width, dim), nn.Linear(image_width, dim)
        self.log_affinity = nn.Parameter(torch.tensor([math.log(affinity)]))

    def words(self, tokens: Tensor) -> Tensor:
        """(R, T, text W) -> (R, T, K) of unit length."""
        return F.normalize(self.word(tokens), dim=-1)

    def asking_words(self, tokens: Tensor) -> Tensor:
        """(R, T, text W) -> (R, T, K), whose products with patches are added to the attention's logits."""
        return self.words(tokens) * self.log_affinity.exp()

    def patches(self, tokens: Tensor) -> Tensor:
        """(P, S, image W) -> (P, S, K) of unit length; 0 for CLS, which no word is about."""
        return F.pad(F.normalize(self.patch(tokens[:, 1:]), dim=-1), (0, 0, 1, 0))


class PatchPositions(nn.Module):
    """Adds to every patch a linear map of where it lies: its row and column, their sines and cosines."""

    def __init__(self, grid: tuple[int, int], width: int) -> None:
        super().__init__()
        lines = [(torch.arange(length) + 0.5) / length * 2 - 1 for length in grid]
        places = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1).view(-1, 2)
        angles = (places[..., None] * math.pi * torch.tensor([0.5, 1.0, 2.0])).flatten(1)
        self.register_buffer("features", torch.cat([places, angles.sin(), angles.cos()], 1), persistent=False)
        self.linear = nn.Linear(self.features.shape[1], width)
        # about as large as the normed content that it is added to
        nn.init.normal_(self.linear.weight, std=(2 / self.features.shape[1]) ** 0.5)
        nn.init.zeros_(self.linear.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """(P, S, W) -> the same."""
        if tokens.shape[1] != 1 + len(self.features):
            raise ValueError(
                f"fusion_positions: {tokens.shape[1]} image tokens are not 1 + {len(self.features)} patches, the whole "
                "grid (patch_dropout must be 0, and the tower needs a CLS token)"
            )
        return tokens + F.pad(self.linear(self.features.to(tokens.dtype)), (0, 0, 1, 0))
