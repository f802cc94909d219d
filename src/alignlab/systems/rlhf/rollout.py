"""Rollouts: prompts to responses through a backend, and everything that is known about them before the update.

Legend: B responses, P prompt tokens, T response tokens of the longest, S = P + T, N response tokens of all rows, D width.
A row is prompt, response, padding: rows are told apart by their lengths, never by padding ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from alignlab.inference.backend import Backend, Request, Sampling
from alignlab.losses.chunked_head import TokenStatistics, token_statistics
from alignlab.losses.ppo import ScorePosition, length_mask, value_mask
from alignlab.models.actor_critic import ActorCritic
from alignlab.types import PromptBatch


class Responses(NamedTuple):
    """What was said to each prompt, on the host."""

    prompts: list[list[int]]  # B, never empty
    responses: list[list[int]]  # B, the token that ended it included
    ended: list[bool]  # B, False: cut at the longest length
    logprobs: list[list[float]]  # B, of the response's tokens, as the sampler saw them


class Places(NamedTuple):
    """Where the response tokens of some rows stand; all int64."""

    state: Tensor  # (N,) into the flattened (rows, width): the token *before* each response token
    token: Tensor  # (N,) into the flattened (B, T) of the whole trajectory
    row: Tensor  # (N,) which of the rows


@dataclass
class Trajectory:
    """Responses with the numbers that the update needs, on the device. Dense (B, T) tensors are 0 off the mask."""

    ids: Tensor  # (B, S) int64, padded on the right
    prompt_length: list[int]  # B
    response_length: list[int]  # B
    mask: Tensor  # (B, T) bool
    ended: Tensor  # (B,) bool
    logprob: Tensor  # (B, T) of the policy before the update, at the sampling temperature
    entropy: Tensor  # (B, T) nats
    reference: Tensor  # (B, T) log-probability under the reference
    value: Tensor  # (B, T)

    @property
    def length(self) -> Tensor:
        """Response tokens of each row, (B,)."""
        return self.mask.sum(1)

    @property
    def total_length(self) -> list[int]:
        """Tokens of prompt and response."""
        return [p + n for p, n in zip(self.prompt_length, self.response_length, strict=True)]


def generate(
    backend: Backend, prompts: Sequence[list[int]], seeds: Sequence[int], sampling: Sampling, context: int | None = None
) -> Responses:
    """One response to each prompt. Raises ValueError for an empty prompt, or where the backend could not answer one."""
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {number} of a batch is empty: a response needs at least one token before it")
        if context is not None and len(prompt) + sampling.max_new_tokens > context:
            raise ValueError(
                f"a prompt of {len(prompt)} tokens and model.response_length={sampling.max_new_tokens} exceed the model's context of {context}"
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
    """A seed for each response, a function of run, update and place in the joint batch: nothing has to be saved to resume."""
    mixed = (seed * 0x9E3779B97F4A7C15 + update * 0xD1B54A32D192ED03) & (2**64 - 1)
    mixed = ((mixed ^ (mixed >> 31)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    return [(mixed + first + i) % (2**63 - 1) for i in range(count)]


def rows_of(responses: Responses, device: torch.device) -> Tensor:
    """Prompt and response of each row, padded on the right with 0, (B, S)."""
    rows = [p + r for p, r in zip(responses.prompts, responses.responses, strict=True)]
    width = max(map(len, rows))
    return torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)


def places(
    rows: Sequence[int],
    prompt_length: Sequence[int],
    length: Sequence[int],
    *,
    width: int,
    longest: int,
    device: torch.device,
) -> Places:
    """Flat places of all response tokens of some rows; made on the host from lengths, so that no device is waited for.

    `prompt_length`, `length` and `longest` are those of the trajectory (B, T), `width` that of the rows' own ids.
    """
    chosen = torch.tensor(rows)
    p, n = torch.tensor(prompt_length)[chosen], torch.tensor(length)[chosen]
    row = torch.repeat_interleave(torch.arange(len(n)), n)
    step = torch.arange(int(n.sum())) - torch.repeat_interleave(n.cumsum(0) - n, n)
    state, token = row * width + p[row] - 1 + step, chosen[row] * longest + step
    return Places(*(x.to(device, non_blocking=True) for x in (state, token, row)))


def micro_batches(rows: Sequence[int], lengths: Sequence[int], size: int) -> list[list[int]]:
    """Rows in parts of `size`, rows of like length together, for the sake of less padding."""
    order = sorted(rows, key=lengths.__getitem__)
    return [order[start : start + size] for start in range(0, len(order), size)]


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
    """Log-probabilities of policy and reference, entropies and values of all response tokens, each from one forward pass.

    Old log-probabilities come from the same kind of pass as those of the update, at the sampling temperature: the ratio then starts at 1, which
    it does not with log-probabilities kept from sampling with a cache, let alone in bfloat16.
    """
    device = net.device
    ids = rows_of(responses, device)
    prompt_length = [len(p) for p in responses.prompts]
    length = [len(r) for r in responses.responses]
    longest = max(length)
    mask = length_mask(torch.tensor(length, device=device), longest)
    zeros = lambda: torch.zeros(len(length), longest, device=device)  # noqa: E731
    found = Trajectory(
        ids, prompt_length, length, mask, torch.tensor(responses.ended, device=device), *(zeros() for _ in range(4))
    )
    valued = value_mask(mask, position).sum(1).tolist()
    total = found.total_length
    for rows in micro_batches(range(len(total)), total, micro_batch):
        width = max(total[i] for i in rows)
        part = ids[rows, :width]
        at = places(rows, prompt_length, length, width=width, longest=longest, device=device)
        target = part.flatten()[at.state + 1]
        hidden = net.hidden(part)
        statistics = _statistics(hidden, at, target, net.head, temperature, entropy=True)
        found.logprob.view(-1)[at.token] = statistics.logprob
        found.entropy.view(-1)[at.token] = statistics.entropy
        if net.value_head is not None:
            states = net.critic_hidden(part, hidden).flatten(0, 1)
            there = places(rows, prompt_length, valued, width=width, longest=longest, device=device)
            found.value.view(-1)[there.token] = net.value(states[there.state])
        if with_reference:
            states = net.reference_hidden(part)
            reference = _statistics(states, at, target, net.reference_head, temperature, entropy=False)
            found.reference.view(-1)[at.token] = reference.logprob
    if not with_reference:
        found.reference = found.logprob
    return found


def _statistics(
    hidden: Tensor, at: Places, target: Tensor, head: torch.nn.Linear, temperature: float, entropy: bool
) -> TokenStatistics:
    chosen = hidden.flatten(0, 1)[at.state]
    return token_statistics(chosen, head.weight, target, bias=head.bias, temperature=temperature, entropy=entropy)


def verify_head(net: ActorCritic, ids: Tensor, tolerance: float) -> None:
    """Compare our way to log-probabilities (trunk, then output layer, no mask) with the model's own forward pass.

    Raises ValueError where a model does something between its trunk and its logits that we don't (soft caps, scales).
    """
    with torch.no_grad():
        logits = net.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits.float()
        wanted = logits[:, :-1].log_softmax(2).gather(2, ids[:, 1:, None]).flatten()
        hidden = net.hidden(ids)[:, :-1].flatten(0, 1)
        found = token_statistics(hidden, net.head.weight, ids[:, 1:].flatten(), bias=net.head.bias).logprob
    worst = (wanted - found).abs().max().item()
    if worst > tolerance:
        raise ValueError(
            f"{type(net.model).__name__} is not supported: its logits are more than its output layer (log-probabilities differ by {worst:.3g})"
        )
