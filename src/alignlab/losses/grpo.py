"""Advantages without a critic, from several responses to each prompt: GRPO, RLOO, REINFORCE++, and what DAPO adds.

Legend: B responses, G of each prompt in a row, T tokens. A prompt's responses are never spread over ranks.
"""

from typing import Literal

import torch
from torch import Tensor

from alignlab.losses.ppo import masked_moments, whiten

Scale = Literal["group", "batch", "none"]


def group_advantages(
    score: Tensor, group: int, scale: Scale = "group", kept: Tensor | None = None, epsilon: float = 1e-4
) -> Tensor:
    """GRPO: (score - mean of the prompt's responses) / (standard deviation + epsilon) (arXiv:2402.03300, eq. 4 and sec.
    4.1.2).

    group: deviation of the prompt's responses, unbiased; batch: of all scores of all ranks (arXiv:2508.08221); none:
    not divided, as Dr. GRPO has it (arXiv:2503.20783, eq. 4). Responses that aren't kept, (B,) bool, count for nothing
    and get 0. score (B,) -> (B,).
    """
    # huggingface/trl v1.12.0 trl/trainer/grpo_trainer.py:2789-2809, the 1e-4 included; verl 0.9.1 has 1e-6, OpenRLHF
    # 0.11.2 1e-9.
    there = torch.ones_like(score, dtype=torch.bool) if kept is None else kept
    rows, by_prompt = there.view(-1, group), _shifted(score, group)
    count = rows.sum(1, keepdim=True)
    mean = torch.where(rows, by_prompt, 0.0).sum(1, keepdim=True) / count.clamp_min(1)
    advantage = torch.where(rows, by_prompt - mean, 0.0)
    if scale == "group":
        deviation = (advantage.square().sum(1, keepdim=True) / (count - 1).clamp_min(1)).sqrt()
        advantage = advantage / (deviation + epsilon)
    elif scale == "batch":
        _, variance = masked_moments(score, there, unbiased=True)
        advantage = advantage / (variance.sqrt() + epsilon)
    return advantage.flatten()


def _shifted(score: Tensor, group: int) -> Tensor:
    """Scores less the first one of their prompt, (B / G, G): equal ones become exactly 0, where the mean of equal
    numbers is rounded.
    """
    by_prompt = score.view(-1, group)
    return by_prompt - by_prompt[:, :1]


def leave_one_out(score: Tensor, group: int, kept: Tensor | None = None) -> Tensor:
    """RLOO: score - mean of the prompt's other responses (arXiv:2402.14740, eq. 8); `kept` as in `group_advantages`.
    score (B,) -> (B,).
    """
    by_prompt = _shifted(score, group)
    rows = torch.ones_like(by_prompt, dtype=torch.bool) if kept is None else kept.view(-1, group)
    others = torch.where(rows, by_prompt, 0.0).sum(1, keepdim=True) - by_prompt
    count = rows.sum(1, keepdim=True) - 1
    return torch.where(rows & (count > 0), by_prompt - others / count.clamp_min(1), 0.0).flatten()


def reinforce_plus_plus(rewards: Tensor, mask: Tensor, gamma: float = 1.0, unbiased: bool = False) -> Tensor:
    """REINFORCE++: discounted sum of token rewards from each token on, whitened over all tokens of all ranks
    (arXiv:2501.03262, sec. 3).

    rewards hold the KL penalty and, on the last token, the score (with a baseline: the score less the mean of its
    group). `unbiased` as in `whiten`. (B, T) -> (B, T).
    """
    steps, running = [], torch.zeros_like(rewards[:, 0])
    for t in range(rewards.shape[1] - 1, -1, -1):
        running = rewards[:, t] + gamma * running
        steps.append(running)
    return whiten(torch.stack(steps[::-1], dim=1), mask, unbiased=unbiased)


def equal_groups(score: Tensor, group: int) -> Tensor:
    """Responses that teach nothing, because all of their prompt have the same score (arXiv:2503.14476, eq. 11): (B,)
    -> (B,) bool.
    """
    by_prompt = score.view(-1, group)
    return (by_prompt == by_prompt[:, :1]).all(1).repeat_interleave(group)


def overlong_penalty(length: Tensor, longest: int, margin: int) -> Tensor:
    """Soft penalty from 0 at `longest - margin` tokens to -1 at `longest` (arXiv:2503.14476, eq. 13). length (B,) ->
    (B,).
    """
    return -((length - (longest - margin)) / max(margin, 1)).clamp(0.0, 1.0)


def sequence_log_ratio(log_ratio: Tensor, sequence: Tensor, num_sequences: int, mean: bool) -> Tensor:
    """Log-ratio of whole responses, for each of their tokens: the sum (RLOO), or the mean (GSPO, arXiv:2507.18071, eq.
    7).

    log_ratio (N,) of the tokens of `num_sequences` responses, sequence (N,) int64 tells whose. Gradient flows to all
    of a response's tokens.
    """
    # The mean: huggingface/trl v1.12.0 trl/trainer/grpo_trainer.py:3175-3177. index_add instead of padded rows: the
    # tokens of a packed batch have no (B, T) shape.
    total = log_ratio.new_zeros(num_sequences).index_add(0, sequence, log_ratio)
    if mean:
        count = log_ratio.new_zeros(num_sequences).index_add(0, sequence, torch.ones_like(log_ratio))
        total = total / count.clamp_min(1.0)
    return total[sequence]
