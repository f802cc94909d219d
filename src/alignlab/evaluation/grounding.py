"""Where a word looks: Grad-CAM of the matching logit in a fusion layer (arXiv:2107.07651, sec. 4, visual grounding).

Legend: B pairs, T tokens, S image tokens (1 CLS + rows * cols patches), H heads, M words.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels, right and bottom exclusive


def grad_cam(
    net: nn.Module, image_tokens: Tensor, text_tokens: Tensor, text_mask: Tensor, *, layer: int, grid: tuple[int, int]
) -> Tensor:
    """Heat of every token on every patch: mean over heads of A * relu(d logit_match / d A), A the cross-attention of
    `layer`.

    `layer` counts fusion layers from 0 (the reference uses its third of six). Takes image tokens (B, S, W'), text
    tokens (B, T, W) and their mask (B, T); gives (B, T, rows, cols), >= 0, zero at padding. No parameter receives a
    gradient. Raises ValueError if the patches don't fill the grid.
    """
    rows, cols = grid
    if image_tokens.shape[1] != 1 + rows * cols:
        raise ValueError(f"{image_tokens.shape[1]} image tokens are not 1 + {rows} x {cols}, the net's grid of patches")
    with torch.inference_mode(False), torch.enable_grad():
        # Copies: tensors made in inference mode take no part in autograd. The text asks for gradients so that the
        # graph exists also where all parameters are frozen.
        text = text_tokens.detach().clone().requires_grad_()
        logits, attention = net.match_with_attention(image_tokens.detach().clone(), text, text_mask.clone(), layer)
        (gradient,) = torch.autograd.grad(logits[:, 1].sum(), attention)
    heat = (attention.detach() * gradient.clamp(min=0)).float().mean(1)[:, :, 1:]  # (B, T, rows * cols)
    return (heat * text_mask[:, :, None]).unflatten(2, (rows, cols))


def upsample(heat: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic, never below zero: (..., rows, cols) -> (..., height, width)."""
    flat = heat.reshape(-1, 1, *heat.shape[-2:]).float()
    large = F.interpolate(flat, size=size, mode="bicubic", align_corners=False).clamp(min=0)
    return large.view(*heat.shape[:-2], *size)


def mean_heat(heat: Tensor, token: Tensor) -> Tensor:
    """Heat of a word of several tokens: (B, T, rows, cols), token (B, T) bool -> (B, rows, cols)."""
    weight = token.to(heat) / token.sum(1, keepdim=True).clamp(min=1)
    return torch.einsum("bt,btrc->brc", weight, heat)


def pointing_game(heat: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Whether a word's hottest pixel lies in its target (arXiv:1608.00507), and how likely a blind point would.

    `heat` (M, height, width) at the picture's size and `target` (M, height, width) bool -> hit (M,) and chance (M,),
    the target's share of the area. Several equally hot pixels share the point.
    """
    hottest = heat == heat.amax((1, 2), keepdim=True)
    hit = (hottest & target).sum((1, 2)) / hottest.sum((1, 2)).clamp(min=1)
    return hit, target.float().mean((1, 2))


def box_mask(boxes: Iterable[Box], size: tuple[int, int]) -> Tensor:
    """Pixels inside any of the boxes: (height, width) bool."""
    mask = torch.zeros(size, dtype=torch.bool)
    for left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = True
    return mask


def box_ranking(heat: Tensor, candidates: Sequence[Box], targets: Sequence[Box]) -> tuple[float, float]:
    """Whether the box of a picture in which a word's heat is largest, sum / area^0.5, is one of its target's
    (intersection / union at least 0.5), and how likely a blind choice would be (arXiv:2107.07651, sec. 4).

    heat (height, width) at the picture's size. Several equally good boxes share the choice: where there is no heat at
    all, it is a blind one.
    """
    # salesforce/ALBEF b9727e4 dataset/utils.py:149-195, where a picture without heat gets the box of the one before
    scores = torch.stack([heat[t:b, l:r].sum() / ((r - l) * (b - t)) ** 0.5 for l, t, r, b in candidates])
    right = torch.tensor([any(overlap(box, target) >= 0.5 for target in targets) for box in candidates])
    best = (scores == scores.max()).cpu()
    return float((best & right).sum() / best.sum()), float(right.float().mean())


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    width, height = (min(one[k + 2], other[k + 2]) - max(one[k], other[k]) for k in (0, 1))
    shared = max(0, width) * max(0, height)
    areas = sum((right - left) * (bottom - top) for left, top, right, bottom in (one, other))
    return shared / (areas - shared)
