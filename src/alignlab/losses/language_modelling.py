"""Log-probabilities of tokens without the logits of a whole batch, and next-token cross-entropy.

Legend: M predicted tokens, W width, V vocabulary.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from alignlab.distributed.collectives import reduce_mean

Terms = TypeVar("Terms")
CHUNK_BYTES = 64 * 2**20  # float32 logits that may exist at a time


def token_log_probs(
    hidden: Tensor,
    head: Callable[[Tensor], Tensor],
    labels: Tensor,
    *,
    temperature: float = 1.0,
    chunk: int | None = None,
) -> Tensor:
    """log softmax(head(h_i) / temperature)[y_i] of M tokens (M,), in float32 (float64 where the states are).

    hidden (M, W), labels (M,) int64. `chunk` tokens at a time (None: as many as 64 MB of logits hold): at most chunk x
    V logits exist, in the backward pass too, where they are computed once more. Equal to the whole up to rounding.
    """
    chunk = chunk_of(head) if chunk is None else chunk
    return torch.cat(in_chunks(partial(_log_probs, head, temperature), hidden, labels, chunk))


def in_chunks(terms: Callable[[Tensor, Tensor], Terms], hidden: Tensor, labels: Tensor, chunk: int) -> list[Terms]:
    """`terms(hidden, labels)` of so many tokens at a time; of several chunks each is computed once more in the backward
    pass, instead of being kept.
    """
    if len(hidden) <= chunk:
        return [terms(hidden, labels)]
    again = torch.is_grad_enabled()
    pairs = zip(hidden.split(chunk), labels.split(chunk), strict=True)
    return [checkpoint(terms, *pair, use_reentrant=False) if again else terms(*pair) for pair in pairs]


def chunk_of(head: Callable[[Tensor], Tensor]) -> int:
    """Tokens whose float32 logits take 64 MB."""
    vocabulary = getattr(getattr(head, "weight", None), "shape", (2**16,))[0]
    return max(1, CHUNK_BYTES // (4 * vocabulary))


def next_token_loss(log_probs: Tensor, *, across_ranks: bool = True) -> Tensor:
    """Mean of -log p over the tokens of all ranks: each rank's sum times R over the number of tokens of all.

    DDP's mean over ranks of the gradients is then that of one process with all rows, however unequal their tokens are.
    log_probs (M,).
    """
    count = torch.full((), float(len(log_probs)), dtype=torch.float32, device=log_probs.device)
    if across_ranks:
        count = reduce_mean(count)
    return -log_probs.sum() / count.clamp_min(1.0)


def _log_probs(head: Callable[[Tensor], Tensor], temperature: float, hidden: Tensor, labels: Tensor) -> Tensor:
    # Whatever the autocast: bfloat16 rounds a logit of 20 to the next eighth.
    logits = head(hidden)
    logits = logits.float() if logits.dtype.itemsize < 4 else logits
    if temperature != 1.0:
        logits = logits / temperature
    return logits.gather(-1, labels[:, None]).squeeze(-1) - logits.logsumexp(-1)
