"""Contrast of captions and pictures by the likeness of their words and patches (FILIP, arXiv:2111.07783).

Legend: B pairs, G pairs of a group, T tokens, S patches, K dimension of comparison.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def late_interaction_contrast(
    words: Tensor, mask: Tensor, patches: Tensor, scale: Tensor, same: Tensor, group: int
) -> Tensor:
    """Mean over words of the likeness to their best patch, as a contrastive loss within groups of G pairs; ().

    FILIP's text-to-image score (eq. 4), contrasted both ways: every word looks for its patch, while most patches of a
    small picture are about no word. words (B, T, K) and patches (B, S, K) of unit length, mask (B, T) True = counts,
    scale () or (1,), same (B, B) True = never a negative. B is a multiple of G: the (G, G, T, S) products of a group
    are the cost.
    """
    size = len(words)
    with torch.autocast(words.device.type, enabled=False):
        words, patches = (x.float().unflatten(0, (-1, group)) for x in (words, patches))
        likeness = torch.einsum("gitk,gjsk->gijts", words, patches).amax(-1)  # (groups, captions, pictures, T)
        weight = mask.unflatten(0, (-1, group))[:, :, None].float()
        score = scale.float() * (likeness * weight).sum(-1) / weight.sum(-1).clamp_min(1.0)
        start = torch.arange(0, size, group, device=same.device)
        index = start[:, None] + torch.arange(group, device=same.device)  # (groups, G)
        own = torch.eye(group, dtype=torch.bool, device=same.device)
        score = score.masked_fill(same[index[:, :, None], index[:, None]] & ~own, -torch.inf)
        target = torch.arange(group, device=same.device).expand(len(score), -1)
        return (F.cross_entropy(score.transpose(1, 2), target) + F.cross_entropy(score, target)) / 2
