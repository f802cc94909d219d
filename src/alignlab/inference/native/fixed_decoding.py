"""The decode loop over fixed steps: launches steps ahead of what it knows, and reads ends and lengths a few tokens
behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch

from alignlab.inference.native.decoding import left_padded
from alignlab.inference.native.fixed_steps import FixedSteps, column_count, prompt_count, row_count
from alignlab.inference.rows import Rows

EVERY = 8  # tokens a read; a row that has ended computes at most twice as many in vain


class Coming(NamedTuple):
    """Tokens that are on their way to the host."""

    members: list[int]  # whose they are
    numbers: Callable[[], list]


@torch.inference_mode()
def decode(steps: FixedSteps, rows: Rows) -> int:
    """Runs a batch to its end and gives the bytes of its cache; tokens are those of `decoding.decode`.

    One read every `EVERY` tokens, and it is of tokens before those that are being computed: the device never waits for
    the host.
    """
    prompts = [request.ids for request in rows.requests]
    ids, starts = left_padded(prompts, prompt_count(row_count(len(prompts)), max(map(len, prompts))))
    length, longest = ids.shape[1], max(rows.limits)
    batch = steps.batch(len(ids), length + longest)
    batch.begin(rows.requests, ids, starts, longest)
    members = going = list(range(len(rows.requests)))
    launched = 1
    coming = deque([Coming(members, batch.read(row_count(len(members)), 0, 1))])
    while going:
        needed = max(rows.limits[row] for row in going)
        until = min(launched + EVERY, needed)
        if until > launched:
            count = row_count(len(members))
            for token in range(launched, until):
                batch.step(count, min(column_count(length + token), batch.columns))
            coming.append(Coming(members, batch.read(count, launched, until)))
            launched = until
        while going and coming and (len(coming) > 1 or launched >= needed):
            going = _taken(rows, going, coming.popleft())
        if going and row_count(len(going)) < row_count(len(members)):
            batch.keep([place for place, row in enumerate(members) if row not in rows.done])
            members = going
    return steps.bytes()


def _taken(rows: Rows, going: list[int], coming: Coming) -> list[int]:
    """Takes up what has come, token by token, and gives the rows that go on."""
    told = dict(zip(coming.members, coming.numbers(), strict=False))  # more rows than members: the last ones are empty
    for token in range(len(told[coming.members[0]])):
        if not going:
            break
        going = rows.advance(going, [int(told[row][token][0]) for row in going], [told[row][token][1] for row in going])
    return going
