"""Where a word looks: Grad-CAM of the matching logit in a fusion layer (arXiv:2107.07651, sec. 4, visual grounding).

Legend: B pairs, T tokens, S image tokens (1 CLS + rows * cols patches), H heads, M words.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def grad_cam(
    net: nn.Module, image_tokens: Tensor, text_tokens: Tensor, text_mask: Tensor, *, layer: int, grid: tuple[int, int]
) -> Tensor:
    """Heat of every token on every patch: mean over heads of A * relu(d logit_match / d A), A the cross-attention of `layer`.

    `layer` counts fusion layers from 0 (the reference uses its third of six). Takes image tokens (B, S, W'), text tokens
    (B, T, W) and their mask (B, T); gives (B, T, rows, cols), >= 0, zero at padding. No parameter receives a gradient.
    Raises ValueError if the patches don't fill the grid.
    """
    rows, cols = grid
    if image_tokens.shape[1] != 1 + rows * cols:
        raise ValueError(f"{image_tokens.shape[1]} image tokens are not 1 + {rows} x {cols}, the net's grid of patches")
    with torch.inference_mode(False), torch.enable_grad():
        # Copies: tensors made in inference mode take no part in autograd. The text asks for gradients so that the graph
        # exists also where all parameters are frozen.
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


def pointing_game(heat: Tensor, box: Tensor) -> dict[str, float]:
    """Share of words whose hottest pixel lies in the word's box (arXiv:1608.00507), and what pointing blindly would reach.

    `heat` (M, height, width) at the picture's size; `box` (M, 4) = left, top, right, bottom in pixels, right and bottom
    exclusive. Several equally hot pixels share the point. Returns accuracy and chance (mean share of the area), in [0, 1].
    Raises ValueError if there is no word.
    """
    if len(heat) == 0:
        raise ValueError("the pointing game needs at least one word with a box")
    _, height, width = heat.shape
    left, top, right, bottom = box.to(heat.device).T[:, :, None]
    x = torch.arange(width, device=heat.device) + 0.5  # pixel centres
    y = torch.arange(height, device=heat.device) + 0.5
    inside = ((y >= top) & (y < bottom))[:, :, None] & ((x >= left) & (x < right))[:, None, :]
    hottest = heat == heat.amax((1, 2), keepdim=True)
    hit = (hottest & inside).sum((1, 2)) / hottest.sum((1, 2)).clamp(min=1)
    accuracy, chance = torch.stack([hit.mean(), inside.float().mean()]).tolist()
    return {"pointing_game_accuracy": accuracy, "pointing_game_chance": chance}
