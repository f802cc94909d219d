"""Which rows of a rollout go through the nets together, and where their tokens stand: made on the host, sent in one
copy.

Legend: B responses, T response tokens of the longest, R rows of a part, N response tokens of these rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from alignlab.losses.ppo import ScorePosition


class Places(NamedTuple):
    """Where the response tokens of some rows stand; all int64."""

    state: Tensor  # (N,) into the flattened (rows, width): the token *before* each response token
    token: Tensor  # (N,) into the flattened (B, T) of the whole trajectory
    row: Tensor  # (N,) which of the rows


class Lengths(NamedTuple):
    """Tokens of each row of a trajectory, on the host."""

    prompt: list[int]  # B
    response: list[int]  # B

    @property
    def total(self) -> list[int]:
        """Tokens of prompt and response."""
        return [p + n for p, n in zip(self.prompt, self.response, strict=True)]

    @property
    def longest(self) -> int:
        """T."""
        return max(self.response)

    def valued(self, position: ScorePosition) -> list[int]:
        """Places of each row that have a value, as in `value_mask`: with `after_last` one more where there is room."""
        return self.response if position == "last" else [min(n + 1, self.longest) for n in self.response]


class Part(NamedTuple):
    """Rows that go through the nets together; tensors lie on the device."""

    rows: Tensor  # (R,) int64 into the trajectory
    width: int  # tokens of the longest of them
    at: Places  # their response tokens
    valued: Places  # their places with a value
    num_valued: int


def places(rows: Sequence[int], prompt: Sequence[int], length: Sequence[int], *, width: int, longest: int) -> Places:
    """Flat places of the first `length` response tokens of some rows, on the host.

    `prompt`, `length` and `longest` are those of the trajectory (B, T), `width` that of the rows' own ids.
    """
    chosen = torch.tensor(rows)
    p, n = torch.tensor(prompt)[chosen], torch.tensor(length)[chosen]
    row = torch.repeat_interleave(torch.arange(len(n)), n)
    step = torch.arange(int(n.sum())) - torch.repeat_interleave(n.cumsum(0) - n, n)
    return Places(row * width + p[row] - 1 + step, chosen[row] * longest + step, row)


def micro_batches(rows: Sequence[int], lengths: Sequence[int], size: int) -> list[list[int]]:
    """Rows in parts of `size`, rows of like length together, for the sake of less padding."""
    order = sorted(rows, key=lengths.__getitem__)
    return [order[start : start + size] for start in range(0, len(order), size)]


def parts_of(
    groups: Sequence[Sequence[int]], lengths: Lengths, position: ScorePosition, device: torch.device
) -> list[Part]:
    """A part of each group of rows; all that the device has to know of them goes there in one copy, which nobody waits
    for.
    """
    valued, total = lengths.valued(position), lengths.total
    widths = [max(total[i] for i in rows) for rows in groups]
    host: list[Tensor] = []
    for rows, width in zip(groups, widths, strict=True):
        sizes = {"width": width, "longest": lengths.longest}
        host += [torch.tensor(rows), *places(rows, lengths.prompt, lengths.response, **sizes)]
        host += [] if position == "last" else places(rows, lengths.prompt, valued, **sizes)
    tensors = iter(sent(host, device))
    parts = []
    for rows, width in zip(groups, widths, strict=True):
        chosen, at = next(tensors), Places(next(tensors), next(tensors), next(tensors))
        there = at if position == "last" else Places(next(tensors), next(tensors), next(tensors))
        parts.append(Part(chosen, width, at, there, sum(valued[i] for i in rows)))
    return parts


def sent(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Tensors of one dtype from the host on a device, in one copy that nobody waits for."""
    whole = torch.cat([tensor.flatten() for tensor in tensors])
    if device.type == "cuda":
        whole = whole.pin_memory()  # else the copy would wait for what the device has to do before it
    flat = whole.to(device, non_blocking=True).split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(flat, tensors, strict=True)]
