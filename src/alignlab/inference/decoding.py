"""The decode loop that our own backends share: prefill, one step a token, finished rows dropped from the batch.

Legend: B rows, P prompt tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from alignlab.inference.backend import Completion, Request
from alignlab.inference.decoder import Cache, Decoder
from alignlab.inference.rows import Rows
from alignlab.inference.sampling import AllowedTokens, Sampler

Step = Callable[[Tensor, Cache], Tensor]  # ids (B, T) -> logits (B, V) of the last position


def left_padded(prompts: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
    """Prompts that end together, and the column each begins at: (B, P), (B,)."""
    longest = max(map(len, prompts))
    starts = torch.tensor([longest - len(prompt) for prompt in prompts])
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    return ids, starts


def last_logits(decoder: Decoder, ids: Tensor, cache: Cache) -> Tensor:
    """Logits of the last position only: (B, T) -> (B, V)."""
    return decoder.logits(decoder.hidden(ids, cache)[:, -1])


@torch.inference_mode()
def decode(
    decoder: Decoder,
    rows: Rows,
    allowed: Sequence[AllowedTokens | None] | None = None,
    step: Step | None = None,
) -> tuple[list[Completion], int]:
    """Runs a batch to its end; gives completions and the bytes of its cache.

    A finished row leaves the batch at once, with its part of the cache, so that the others don't pay for it.
    """
    step = step or (lambda ids, cache: last_logits(decoder, ids, cache))
    requests = rows.requests
    ids, starts = left_padded([request.ids for request in requests])
    columns = ids.shape[1] + max(rows.limits)
    cache = decoder.cache(len(requests), columns)
    cache.starts, cache.padded = starts, bool(starts.any())
    size = cache.bytes()
    sampler = Sampler(requests, decoder.architecture.vocabulary, allowed)
    running = list(range(len(requests)))
    while True:
        logits = step(ids, cache)
        chosen, logprobs = sampler.choose(logits, [rows.ids[row] for row in running])
        going = rows.advance(running, chosen.tolist(), logprobs.tolist())
        if not going:
            return [rows.done[row] for row in range(len(requests))], size
        if len(going) < len(running):
            kept = torch.tensor([index for index, row in enumerate(running) if row not in rows.done])
            cache.keep(kept)
            sampler.keep(kept)
            chosen, running = chosen[kept], going
        ids = chosen[:, None]


def batches(requests: Sequence[Request], skip: dict[int, Completion], batch_size: int) -> list[list[int]]:
    """Numbers of the requests that run together: those of like length, long ones first."""
    numbers = [number for number in range(len(requests)) if number not in skip]
    numbers.sort(key=lambda number: -len(requests[number].ids))
    return [numbers[start : start + batch_size] for start in range(0, len(numbers), batch_size)]


@torch.inference_mode()
def score(decoder: Decoder, sequences: Sequence[list[int]], batch_size: int, chunk: int = 256) -> list[list[float]]:
    """Log-probability of every token given those before it; logits exist for `chunk` positions at a time."""
    order = sorted(range(len(sequences)), key=lambda number: -len(sequences[number]))
    found: list[list[float]] = [[] for _ in sequences]
    for start in range(0, len(order), batch_size):
        part = [number for number in order[start : start + batch_size] if len(sequences[number]) > 1]
        if not part:
            continue
        ids, starts = left_padded([sequences[number] for number in part])
        cache = decoder.cache(len(part), ids.shape[1])
        cache.starts, cache.padded = starts, bool(starts.any())
        hidden = decoder.hidden(ids, cache)[:, :-1].flatten(0, 1)
        targets = ids[:, 1:].flatten()
        pieces = []
        for states, wanted in zip(hidden.split(chunk), targets.split(chunk), strict=True):
            logits = decoder.logits(states)
            pieces.append(logits.gather(1, wanted[:, None])[:, 0] - logits.logsumexp(-1))
        logprobs = torch.cat(pieces).view(len(part), -1)
        for row, number in enumerate(part):
            found[number] = logprobs[row, int(starts[row]) :].tolist()
    return found
