"""The decode loop that our own backends share: prefill, one step a token, finished rows dropped from the batch.

Legend: B rows, P prompt tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from alignlab.distributed.devices import sent
from alignlab.inference.native.decoder import Cache, Decoder
from alignlab.inference.rows import Rows
from alignlab.inference.sampling import AllowedTokens, Sampler, told

Step = Callable[[Tensor, Cache], Tensor]  # ids (B, T) -> logits (B, V) of the last position


def left_padded(prompts: Sequence[list[int]], columns: int = 0) -> tuple[Tensor, list[int]]:
    """Prompts that end together, and the column each begins at, on the host: (B, P), B.

    Args:
        columns: P at least.
    """
    longest = max(columns, *map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    return ids, [longest - len(prompt) for prompt in prompts]


def last_logits(decoder: Decoder, ids: Tensor, cache: Cache) -> Tensor:
    """Logits of the last position only: (B, T) -> (B, V)."""
    return decoder.logits(decoder.hidden(ids, cache)[:, -1])


@torch.inference_mode()
def decode(
    decoder: Decoder,
    rows: Rows,
    allowed: Sequence[AllowedTokens | None] | None = None,
    step: Step | None = None,
) -> int:
    """Runs a batch to its end and gives the bytes of its cache.

    A finished row leaves the batch at once, with its part of the cache, so that the others don't pay for it. Every
    token is read as it is chosen.

    Args:
        step: computes the logits of one further token a row, if not the decoder itself.
    """
    requests = rows.requests
    ids, starts = left_padded([request.ids for request in requests])
    cache = decoder.cache(starts, ids.shape[1] + max(rows.limits))
    size = cache.bytes()
    sampler = Sampler(requests, decoder.architecture.vocabulary, allowed, decoder.device)
    going = list(range(len(requests)))
    ids = sent(ids, decoder.device)
    while True:
        logits = last_logits(decoder, ids, cache) if step is None or cache.column == 0 else step(ids, cache)
        chosen, logprobs = sampler.choose(logits, [rows.ids[row] for row in going])
        before, going = going, rows.advance(going, *told(chosen, logprobs))
        if not going:
            return size
        if len(going) < len(before):
            kept = [index for index, row in enumerate(before) if row not in rows.done]
            index = sent(torch.tensor(kept), decoder.device)
            cache.keep(kept, index)
            sampler.keep(kept, index)
            chosen = chosen[index]
        ids = chosen[:, None]


@torch.inference_mode()
def score(decoder: Decoder, sequences: Sequence[list[int]], batch_size: int, chunk: int = 256) -> list[list[float]]:
    """Log-probability of every token given those before it; logits exist for `chunk` positions at a time."""
    order = sorted(range(len(sequences)), key=lambda number: -len(sequences[number]))
    scores: list[list[float]] = [[] for _ in sequences]
    for start in range(0, len(order), batch_size):
        part = [number for number in order[start : start + batch_size] if len(sequences[number]) > 1]
        if not part:
            continue
        ids, starts = left_padded([sequences[number] for number in part])
        cache = decoder.cache(starts, ids.shape[1])
        ids = sent(ids, decoder.device)
        hidden = decoder.hidden(ids, cache)[:, :-1].flatten(0, 1)
        targets = ids[:, 1:].flatten()
        pieces = []
        for states, wanted in zip(hidden.split(chunk), targets.split(chunk), strict=True):
            logits = decoder.logits(states)
            pieces.append(logits.gather(1, wanted[:, None])[:, 0] - logits.logsumexp(-1))
        logprobs = torch.cat(pieces).view(len(part), -1).tolist()
        for row, number in enumerate(part):
            scores[number] = logprobs[row][starts[row] :]
    return scores
