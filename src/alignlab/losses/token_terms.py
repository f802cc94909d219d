"""What a head says of given tokens: log-probability and log Z, of which pre-training makes its loss; one pass back.

Legend: M predicted tokens, W width, V vocabulary.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from alignlab.losses.language_modelling import chunk_of, in_chunks


class TokenTerms(NamedTuple):
    """Of M tokens, in float32 (float64 where the states are)."""

    log_prob: Tensor  # (M,) nats
    log_z: Tensor  # (M,) logsumexp of the logits
    right: Tensor  # (M,) bool, whether no other token has a higher logit


def token_terms(
    hidden: Tensor, head: Callable[[Tensor], Tensor], labels: Tensor, *, chunk: int | None = None
) -> TokenTerms:
    """Terms of M tokens; hidden (M, W), labels (M,) int64.

    `chunk` tokens at a time (None: as many as 64 MB of float32 logits hold): no more logits exist at once; those of
    several chunks are computed again in the backward pass.
    """
    chunk = chunk_of(head) if chunk is None else chunk
    parts = in_chunks(partial(_terms, head), hidden, labels, chunk)
    return TokenTerms(*(torch.cat(terms) for terms in zip(*parts, strict=True)))


def _terms(head: Callable[[Tensor], Tensor], hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    logits = head(hidden)
    logits = logits.float() if logits.dtype.itemsize < 4 else logits
    return _Terms.apply(logits, labels)


class _Terms(torch.autograd.Function):
    """d log p_y = [y] - p and d log Z = p, written in one buffer; autograd would fill three of that size."""

    @staticmethod
    def forward(ctx, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        highest = logits.amax(-1)
        own = logits.gather(-1, labels[:, None]).squeeze(-1)
        log_z = torch.logsumexp(logits, -1)
        right = own >= highest
        ctx.save_for_backward(logits, labels, log_z)
        ctx.mark_non_differentiable(right)
        return own - log_z, log_z, right

    @staticmethod
    def backward(ctx, to_log_prob: Tensor, to_log_z: Tensor, _: Tensor) -> tuple[Tensor, None]:
        logits, labels, log_z = ctx.saved_tensors
        gradient = (logits - log_z[:, None]).exp_().mul_((to_log_z - to_log_prob)[:, None])
        return gradient.scatter_add_(-1, labels[:, None], to_log_prob[:, None]), None
