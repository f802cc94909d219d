"""Advantages without a critic, by hand."""

from alignlab.losses.grpo import (
    equal_groups,
    group_advantages,
    leave_one_out,
    overlong_penalty,
    reinforce_plus_plus,
    sequence_log_ratio,
)
from alignlab.losses.ppo import length_mask

import pytest
import torch
from torch.testing import assert_close

SCORE = torch.tensor([1.0, 3.0, 5.0, 5.0])


def test_groups() -> None:
    assert_close(group_advantages(SCORE, 2, "none"), torch.tensor([-1.0, 1.0, 0.0, 0.0]))
    deviation = 2**0.5
    assert_close(group_advantages(SCORE, 2), torch.tensor([-1.0, 1.0, 0.0, 0.0]) / (deviation + 1e-4))
    assert_close(group_advantages(SCORE, 2, "batch"), torch.tensor([-1.0, 1.0, 0.0, 0.0]) / (SCORE.std() + 1e-4))
    assert leave_one_out(SCORE, 2).tolist() == [-2.0, 2.0, 0.0, 0.0]
    assert equal_groups(SCORE, 2).tolist() == [False, False, True, True]


def test_reinforce_plus_plus() -> None:
    mask = length_mask(torch.tensor([2, 1]), 2)
    rewards = torch.tensor([[1.0, 2.0], [6.0, 0.0]])
    to_go = torch.tensor([1 + 0.5 * 2, 2.0, 6.0])
    found = reinforce_plus_plus(rewards, mask, gamma=0.5)[mask]
    assert_close(found, (to_go - to_go.mean()) / to_go.std(correction=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [2, 4, 7, 8, 64])
@pytest.mark.parametrize("value", [0.35, 100.1, 1000.1, 12345.6, -1e7])
def test_equal_scores_have_no_advantage_at_all(value: float, size: int) -> None:
    score = torch.full((3 * size,), value)
    for scale in ("group", "batch", "none"):
        assert not group_advantages(score, size, scale).any(), scale
    assert not leave_one_out(score, size).any()
    mixed = torch.cat([score[:size], torch.linspace(value, value + 4, size)])
    for scale in ("group", "batch", "none"):
        found = group_advantages(mixed, size, scale)
        assert not found[:size].any() and found[-1] > 0
    mask = length_mask(torch.tensor([4, 1, 2] * size), 4)
    on_the_last = torch.zeros(3 * size, 4).scatter(1, mask.sum(1, keepdim=True) - 1, value)
    assert not reinforce_plus_plus(on_the_last, mask).any()


def test_overlong() -> None:
    assert overlong_penalty(torch.tensor([5, 8, 9, 10]), 10, 2).tolist() == [0.0, 0.0, -0.5, -1.0]


@pytest.mark.parametrize("mean", [False, True])
def test_ratio_of_whole_responses(mean: bool) -> None:
    log_ratio, sequence = torch.tensor([1.0, 2.0, 5.0], requires_grad=True), torch.tensor([0, 0, 1])
    found = sequence_log_ratio(log_ratio, sequence, 2, mean)
    assert found.tolist() == ([1.5, 1.5, 5.0] if mean else [3.0, 3.0, 5.0])
    found[0].backward()
    assert log_ratio.grad.tolist() == ([0.5, 0.5, 0.0] if mean else [1.0, 1.0, 0.0])


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_what_is_not_kept_counts_for_nothing(scale: str) -> None:
    score = torch.tensor([0.1, 5.0, 0.4, 0.7, 2.0, 2.0, 9.0, 1.0])
    kept = torch.tensor([True, False, True, True, True, True, False, True])
    whole = group_advantages(score, 4, scale, kept)
    assert torch.equal(whole[~kept], torch.zeros(2))
    assert_close(whole[kept], group_advantages(score[kept], 3, scale))
    others = leave_one_out(score, 4, kept)
    assert_close(others[kept], leave_one_out(score[kept], 3))
    alone = torch.tensor([True, False, False, False] * 2)
    assert not group_advantages(score, 4, "group", alone).any() and not leave_one_out(score, 4, alone).any()
