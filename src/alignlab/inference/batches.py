"""Puts requests of like length into batches, runs one after the other, and gives completions in the order of the
requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from alignlab.inference.backend import Completion, Request
from alignlab.inference.constraints import allowed_tokens
from alignlab.inference.rows import OnDone, OnToken, Rows, refused
from alignlab.inference.sampling import AllowedTokens
from alignlab.inference.source import OpenSource

Run = Callable[[Rows, "list[AllowedTokens | None] | None"], None]  # one batch, to its end


def run_batches(
    requests: Sequence[Request],
    run: Run,
    opened: OpenSource,
    *,
    batch_size: int,
    vocabulary: int,
    max_positions: int | None,
    on_token: OnToken | None,
    on_done: OnDone | None,
) -> list[Completion]:
    """Requests that cannot run are refused at once; the others run in batches, long prompts first."""
    done = refused(requests, vocabulary, max_positions, on_done)
    for numbers in batches(requests, done, batch_size):
        part = [requests[number] for number in numbers]
        tokenizer = opened.tokenizer if any(request.sampling.needs_text for request in part) else None
        rows = Rows(
            part,
            numbers,
            eos=opened.eos,
            max_positions=max_positions,
            tokenizer=tokenizer,
            on_token=on_token,
            on_done=on_done,
        )
        run(rows, allowed_tokens(part, tokenizer, opened.eos, vocabulary))
        done |= {number: rows.done[row] for row, number in enumerate(numbers)}
    return [done[number] for number in range(len(requests))]


def batches(requests: Sequence[Request], skip: dict[int, Completion], batch_size: int) -> list[list[int]]:
    """Numbers of the requests that run together: those of like length, so that little is padding."""
    numbers = [number for number in range(len(requests)) if number not in skip]
    numbers.sort(key=lambda number: -len(requests[number].ids))
    return [numbers[start : start + batch_size] for start in range(0, len(numbers), batch_size)]
