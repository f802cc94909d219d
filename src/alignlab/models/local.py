"""A convolutional vision tower whose cells know what lies near them and not where they are.

Legend: B batch, C cells (rows * columns), W width.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from alignlab.models.vision import ConvStem


class LocalBlock(nn.Module):
    """Depthwise 3 x 3 convolution, norm over channels, two linear maps, residual (ConvNeXt, arXiv:2201.03545)."""

    entry_points = ("forward",)  # methods that use parameters, for `alignlab.strategies.sharding`

    def __init__(self, width: int, mlp_ratio: float, eps: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.inner = nn.Linear(width, int(width * mlp_ratio))
        self.out = nn.Linear(int(width * mlp_ratio), width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, rows, columns, W) -> the same."""
        near = self.depthwise(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.out(nn.functional.gelu(self.inner(self.norm(near))))


class LocalTower(nn.Module):
    """Convolutional stem down to the grid, `depth` local blocks, norm; the mean of the cells stands for the picture.

    For small data: what a cell holds comes from its surroundings alone, so that a word can find the thing it names
    long before a transformer of the same cost has learnt to keep them apart. Places have to come from elsewhere, such
    as `AlbefEncoder`'s `fusion_positions`. Takes the place of `vision_transformer`: grid (rows, columns) of cells,
    width W.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        patch_size: int = 16,
        width: int = 768,
        depth: int = 3,
        mlp_ratio: float = 4.0,
        norm_eps: float = 1e-6,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if image_size % patch_size:
            raise ValueError(f"image_size={image_size} must be a multiple of patch_size={patch_size}")
        self.stem = ConvStem(image_size, patch_size, 3, width)
        self.blocks = nn.ModuleList(LocalBlock(width, mlp_ratio, norm_eps) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.grid, self.width, self.gradient_checkpointing = self.stem.grid_size, width, gradient_checkpointing

    def tokens(self, image: Tensor) -> Tensor:
        """The mean of all cells, then the cells: (B, 3, H, W) -> (B, 1 + C, W)."""
        x = self.stem(image).unflatten(1, self.grid)
        for block in self.blocks:
            x = self._run(block, x)
        x = self.norm(x).flatten(1, 2)
        return torch.cat([x.mean(1, keepdim=True), x], 1)

    def pooled(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, W)."""
        return self.tokens(image)[:, 0]

    forward = pooled

    def _run(self, block: Callable[..., Tensor], x: Tensor) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, x, use_reentrant=False)
        return block(x)
