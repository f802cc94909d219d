"""What one optimizer step learns from: rows of a rollout with their advantages, in parts that fit into memory.

Legend: B responses of this process, T response tokens of the longest, R rows of a part, W tokens of its longest row,
N response tokens of these rows, M places of theirs with a value.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from alignlab.distributed.collectives import reduce_sum
from alignlab.inference.backend import Sampling
from alignlab.methods.rlhf.parts import Part, Places
from alignlab.methods.rlhf.rollout import Trajectory


class Experience(NamedTuple):
    """What an update learns from."""

    advantage: Tensor  # (B, T), whitened where asked for, 0 off the mask
    returns: Tensor | None  # (B, T), the critic's aim; None without a critic
    weight: Tensor  # (B,) 1, or 0 for responses that are left out


class Totals(NamedTuple):
    """Counts over the whole step: all micro-batches and ranks. What is divided by them may be summed over both."""

    tokens: Tensor  # ()
    sequences: Tensor  # ()
    values: Tensor  # () places with a value

    @classmethod
    def of(cls, t: Trajectory, e: Experience, parts: Sequence[Part]) -> "Totals":
        """Counts over the parts of this rank and of all others, in one exchange."""
        rows = torch.cat([part.rows for part in parts])
        used = e.weight[rows]
        values = torch.full_like(used[0], sum(part.num_valued for part in parts))
        counts = torch.stack([(t.length[rows] * used).sum(), used.sum(), values])
        return cls(*reduce_sum(counts).clamp_min(1.0))


class Minibatch(NamedTuple):
    """Rows that go through the nets together, with all that their share of a step's loss depends on."""

    ids: Tensor  # (R, W) int64, prompt, response, padding
    length: Tensor  # (R,) int64, response tokens
    weight: Tensor  # (R,) factor of a row's policy loss
    at: Places  # of the response tokens
    valued: Places  # of what has a value
    advantage: Tensor  # (N,)
    logprob: Tensor  # (N,) nats, of the policy that gave the response
    sampled: Tensor  # (N,) nats, as the sampler saw it
    reference: Tensor  # (N,) nats, of the reference
    value: Tensor | None  # (M,) before the update; None without a critic
    returns: Tensor | None  # (M,)
    totals: Totals
    sampling: Sampling  # how the responses were drawn

    @classmethod
    def of(
        cls, t: Trajectory, e: Experience, part: Part, totals: Totals, sampling: Sampling, weight: float = 1.0
    ) -> "Minibatch":
        """The rows of a part; `weight` is a factor of their policy loss."""
        at, there = part.at.token, part.valued.token
        return cls(
            t.ids[part.rows, : part.width],
            t.length[part.rows],
            weight * e.weight[part.rows],
            part.at,
            part.valued,
            e.advantage.flatten()[at],
            t.logprob.flatten()[at],
            t.sampled.flatten()[at],
            t.reference.flatten()[at],
            None if e.returns is None else t.value.flatten()[there],
            None if e.returns is None else e.returns.flatten()[there],
            totals,
            sampling,
        )
