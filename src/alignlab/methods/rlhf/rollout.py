"""Rollouts: prompts to responses through a backend, and everything that is known about them before the update.

Legend: B responses, P prompt tokens, T response tokens of the longest, S = P + T, N response tokens of all rows, D
width.
A row is prompt, response, padding: rows are told apart by their lengths, never by padding ids.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from alignlab.inference.backend import Backend, Request, Sampling
from alignlab.losses.chunked_head import TokenStatistics, token_statistics
from alignlab.losses.ppo import ScorePosition, length_mask
from alignlab.methods.rlhf.parts import Lengths, Part, Places, micro_batches, parts_of, sent
from alignlab.models.language.actor_critic import ActorCritic
from alignlab.types.language import PromptBatch


class Responses(NamedTuple):
    """What was said to each prompt, on the host."""

    prompts: list[list[int]]  # B, never empty
    responses: list[list[int]]  # B, the token that ended it included
    ended: list[bool]  # B, False: cut at the longest length
    logprobs: list[list[float]]  # B, of the response's tokens, as the sampler saw them
    contents: list | None = None  # B, what the prompts were rendered from, where that is known
    rows: list | None = None  # B, the other columns of the prompts' rows


@dataclass
class Trajectory:
    """Responses with the numbers that the update needs, on the device.

    Dense (B, T) tensors are float32 and 0 off the mask.
    """

    ids: Tensor  # (B, S) int64, padded on the right
    lengths: Lengths  # on the host
    length: Tensor  # (B,) int64, response tokens
    mask: Tensor  # (B, T) bool
    ended: Tensor  # (B,) bool
    sampled: Tensor  # (B, T) log-probability as the sampler saw it
    logprob: Tensor  # (B, T) of the policy before the update, at the sampling temperature
    entropy: Tensor  # (B, T) nats
    reference: Tensor  # (B, T) log-probability under the reference
    value: Tensor  # (B, T)

    @classmethod
    def of(cls, responses: Responses, device: torch.device) -> "Trajectory":
        """Ids, lengths and the sampler's log-probabilities; what the nets say is 0 still. Two copies, which nobody
        waits for.
        """
        lengths = Lengths([len(p) for p in responses.prompts], [len(r) for r in responses.responses])
        longest = lengths.longest
        table = [rows_of(responses), torch.tensor(lengths.response), torch.tensor(responses.ended).long()]
        ids, length, ended = sent(table, device)
        sampled = torch.tensor([[*row, *[0.0] * (longest - len(row))] for row in responses.logprobs])
        zeros = (torch.zeros(len(length), longest, device=device, dtype=torch.float32) for _ in range(4))
        mask = length_mask(length, longest)
        return cls(ids, lengths, length, mask, ended.bool(), sent([sampled.float()], device)[0], *zeros)

    def passes(self, micro_batch: int, position: ScorePosition = "last") -> Iterator[tuple[Part, Tensor, Tensor]]:
        """All rows in parts that go through a net at once: the part, its ids, and the response tokens to look for."""
        total = self.lengths.total
        groups = micro_batches(range(len(total)), total, micro_batch)
        for part in parts_of(groups, self.lengths, position, self.ids.device):
            ids = self.ids[part.rows, : part.width]
            yield part, ids, ids.flatten()[part.at.state + 1]


def generate(
    backend: Backend, prompts: Sequence[list[int]], seeds: Sequence[int], sampling: Sampling, context: int | None = None
) -> Responses:
    """One response to each prompt.

    Raises ValueError for an empty prompt, or where the backend could not answer one.
    """
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {number} of a batch is empty: a response needs at least one token before it")
        if context is not None and len(prompt) + sampling.max_new_tokens > context:
            raise ValueError(
                f"a prompt of {len(prompt)} tokens and response_length={sampling.max_new_tokens} exceed the model's "
                f"context of {context}"
            )
    requests = [Request(list(p), seed, sampling) for p, seed in zip(prompts, seeds, strict=True)]
    done = backend.generate(requests)
    for number, completion in enumerate(done):
        if completion.finish == "error":
            raise ValueError(f"prompt {number} of a batch got no response: {completion.error}")
    return Responses(
        [list(p) for p in prompts],
        [list(c.ids) for c in done],
        [c.finish in ("eos", "stop") for c in done],
        [c.logprobs for c in done],
    )


def prompts_of(batch: PromptBatch, repeats: int = 1) -> list[list[int]]:
    """The prompts without padding, each `repeats` times in a row."""
    rows = zip(batch.ids.tolist(), batch.mask.tolist(), strict=True)
    prompts = [[i for i, keep in zip(ids, mask, strict=True) if keep] for ids, mask in rows]
    return [prompt for prompt in prompts for _ in range(repeats)]


def request_seeds(seed: int, update: int, first: int, count: int) -> list[int]:
    """A seed for each response, a function of run, update and place in the joint batch: nothing has to be saved to
    resume.
    """
    mixed = (seed * 0x9E3779B97F4A7C15 + update * 0xD1B54A32D192ED03) & (2**64 - 1)
    mixed = ((mixed ^ (mixed >> 31)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    return [(mixed + first + i) % (2**63 - 1) for i in range(count)]


def rows_of(responses: Responses) -> Tensor:
    """Prompt and response of each row, padded on the right with 0, (B, S), on the host."""
    rows = [p + r for p, r in zip(responses.prompts, responses.responses, strict=True)]
    width = max(map(len, rows))
    return torch.tensor([row + [0] * (width - len(row)) for row in rows])


@torch.no_grad()
def evaluate(
    net: ActorCritic,
    responses: Responses,
    *,
    temperature: float,
    micro_batch: int,
    position: ScorePosition = "last",
    with_reference: bool = True,
) -> Trajectory:
    """Log-probabilities of policy and reference, entropies and values of all response tokens, each from one forward
    pass.

    Old log-probabilities come from the same kind of pass as those of the update, at the sampling temperature: the
    ratio then starts at 1, which it does not with log-probabilities kept from sampling with a cache, let alone in
    bfloat16.
    """
    trajectory = Trajectory.of(responses, net.device)
    for part, ids, target in trajectory.passes(micro_batch, position):
        at = part.at
        hidden = net.hidden(ids)
        statistics = _statistics(hidden, at, target, net.head, temperature, entropy=True)
        trajectory.logprob.view(-1)[at.token] = statistics.logprob
        trajectory.entropy.view(-1)[at.token] = statistics.entropy
        if net.value_head is not None:
            states = net.critic_hidden(ids, hidden).flatten(0, 1)
            trajectory.value.view(-1)[part.valued.token] = net.value(states[part.valued.state])
        if with_reference:
            states = net.reference_hidden(ids)
            reference = _statistics(states, at, target, net.reference_head, temperature, entropy=False)
            trajectory.reference.view(-1)[at.token] = reference.logprob
    if not with_reference:
        trajectory.reference = trajectory.logprob
    return trajectory


def _statistics(
    hidden: Tensor, at: Places, target: Tensor, head: torch.nn.Linear, temperature: float, entropy: bool
) -> TokenStatistics:
    chosen = hidden.flatten(0, 1)[at.state]
    return token_statistics(chosen, head.weight, target, bias=head.bias, temperature=temperature, entropy=entropy)
