"""Losses over a vocabulary.

Legend: M masked positions, T tokens, R texts, V vocabulary.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class MaskedTokens(NamedTuple):
    """Texts with some tokens hidden, and where to look for them."""

    ids: Tensor  # (R, T) int64, with [MASK] and random tokens set in
    position: Tensor  # (M,) int64 into the flattened (R * T); M is fixed, so surplus rows point at token 0
    label: Tensor  # (M,) int64, the hidden token
    weight: Tensor  # (M,) float, 1 for a hidden token and 0 for a surplus row


def mask_capacity(tokens: int, probability: float) -> int:
    """Rows that hold the masked ones of `tokens` Bernoulli draws in all but one of a billion cases (mean + 6
    deviations).
    """
    spread = 6.0 * (tokens * probability * (1.0 - probability)) ** 0.5
    return min(tokens, int(tokens * probability + spread) + 1)


def mask_tokens(
    ids: Tensor,
    mask: Tensor,
    *,
    mask_id: int,
    cls_id: int,
    vocab_size: int,
    probability: float = 0.15,
    draw: Tensor | None = None,
    words: Tensor | None = None,
) -> MaskedTokens:
    """Hide tokens for masked language modelling (arXiv:1810.04805, sec. 3.1): 80 % [MASK], 10 % random, 10 % kept.

    Padding and [CLS] are never hidden. The number of rows depends only on the shape (R, T), so nothing waits for the
    device; a draw beyond that capacity is left unhidden. ids (R, T), mask (R, T) True = token. The chances may be
    given: `draw` (R, T) uniform in [0, 1) decides what is hidden and how, `words` (R, T) are the random tokens.
    """
    eligible = mask & (ids != cls_id)
    draw = torch.rand(ids.shape, device=ids.device) if draw is None else draw
    words = torch.randint(vocab_size, ids.shape, device=ids.device) if words is None else words
    hidden = eligible & (draw < probability)
    # Stable sort puts the hidden positions first, in order: the fixed-size form of nonzero().
    capacity = mask_capacity(ids.numel(), probability)
    order = torch.argsort((~hidden).flatten().to(torch.uint8), stable=True)[:capacity]
    kept = hidden.flatten()[order]
    position = torch.where(kept, order, 0)
    label = ids.flatten()[position]
    kind = draw.flatten()[order] / probability  # uniform in [0, 1) given that it is hidden
    noise = torch.where(kind < 0.9, words.flatten()[order], label)
    replacement = torch.where(kind < 0.8, torch.full_like(label, mask_id), noise)
    # Surplus rows write to a slot past the end.
    slots = torch.where(kept, order, ids.numel())
    flat = torch.cat([ids.flatten(), ids.new_zeros(1)]).scatter(0, slots, replacement)
    return MaskedTokens(flat[:-1].view_as(ids), position, label, kept.float())


def hide_marked(ids: Tensor, marked: Tensor, *, mask_id: int, per_row: int = 2) -> MaskedTokens:
    """Hides the marked tokens of every text behind [MASK] and leaves all else to be seen (salient span masking,
    arXiv:2002.08909, sec. 3.4).

    ids (R, T), marked (R, T) bool. Like `mask_tokens` it gives a fixed number of rows, `per_row` a text on average;
    what is marked beyond them, at the end of the batch, is hidden and not asked for.
    """
    flat = marked.flatten()
    order = torch.argsort((~flat).to(torch.uint8), stable=True)[: per_row * len(ids)]
    kept = flat[order]
    position = torch.where(kept, order, 0)
    return MaskedTokens(ids.masked_fill(marked, mask_id), position, ids.flatten()[position], kept.float())


def distilled_cross_entropy(
    logits: Tensor,
    label: Tensor,
    weight: Tensor,
    teacher_logits: Tensor | None,
    alpha: float,
    total: Tensor | None = None,
) -> Tensor:
    """Cross-entropy against (1 - alpha) * one-hot + alpha * softmax(teacher), averaged over rows of weight 1.

    (1 - a) CE(y, p) + a CE(q, p) = logsumexp(s) - (1 - a) s_y - a <q, s>  (arXiv:2107.07651, eq. 7), in float32.
    logits, teacher_logits (M, V); label, weight (M,). total: what to divide by instead of the sum of the weights, such
    as its mean over ranks. No masked token at all gives 0, where the reference gives NaN.
    """
    logits = logits.float()
    expected = logits.gather(1, label[:, None]).squeeze(1)
    if teacher_logits is not None and alpha > 0.0:
        soft = (teacher_logits.float().softmax(1) * logits).sum(1)
        expected = (1.0 - alpha) * expected + alpha * soft
    loss = logits.logsumexp(1) - expected
    total = weight.sum() if total is None else total
    return (loss * weight).sum() / torch.where(total > 0, total, 1.0)
