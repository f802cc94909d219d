"""The decode loop that our own backends share: prefill, one step a token, finished rows dropped from the batch.

Legend: B rows, P prompt tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

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
) -> int:
    """Runs a batch to its end and gives the bytes of its cache.

    A finished row leaves the batch at once, with its part of the cache, so that the others don't pay for it. With a compiled `step` shapes
    change rarely instead: rows leave when half of them have ended, and the cache's length is a power of two.
    """
    requests, static = rows.requests, step is not None
    ids, starts = left_padded([request.ids for request in requests])
    columns = ids.shape[1] + max(rows.limits)
    cache = decoder.cache(len(requests), 1 << (columns - 1).bit_length() if static else columns, static)
    cache.pad(starts)
    size = cache.bytes()
    sampler = Sampler(requests, decoder.architecture.vocabulary, allowed, decoder.device)
    members = going = list(range(len(requests)))  # of the batch; those that have not ended
    ids = ids.to(decoder.device)
    while True:
        logits = step(ids, cache) if static and ids.shape[1] == 1 else last_logits(decoder, ids, cache)
        chosen, logprobs = sampler.choose(logits, [rows.ids[row] for row in members])
        told = {row: pair for row, *pair in zip(members, chosen.tolist(), logprobs.tolist(), strict=True)}
        going = rows.advance(going, [told[row][0] for row in going], [told[row][1] for row in going])
        if not going:
            return size
        if len(going) <= len(members) // 2 or (len(going) < len(members) and not static):
            kept = torch.tensor([index for index, row in enumerate(members) if row not in rows.done])
            cache.keep(kept)
            sampler.keep(kept.to(decoder.device))
            chosen, members = chosen[kept.to(decoder.device)], going
        ids = chosen[:, None]


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
        cache.pad(starts)
        ids = ids.to(decoder.device)
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
