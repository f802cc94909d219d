"""PPO's pure functions: cases by hand, and what must change nothing."""

import math

from alignlab.losses.ppo import (
    explained_variance,
    gae,
    length_mask,
    penalise_missing_end,
    policy_terms,
    token_kl,
    token_rewards,
    token_weights,
    value_mask,
    value_terms,
    whiten,
)

import pytest
import torch
from torch.testing import assert_close


def test_kl_estimators() -> None:
    logprob, reference = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0])
    assert_close(token_kl(logprob, reference), torch.tensor([0.5, -1.0]))
    assert_close(token_kl(logprob, reference, "k2"), torch.tensor([0.125, 0.5]))
    assert_close(token_kl(logprob, reference, "k3"), torch.tensor([math.exp(-0.5) - 0.5, math.e - 2.0]))
    assert_close(token_kl(logprob, reference, limit=0.7), torch.tensor([0.5, -0.7]))


def test_k1_and_k3_are_unbiased_for_samples_of_the_policy() -> None:
    g = torch.Generator().manual_seed(0)
    p, q = torch.randn(2, 6, generator=g).log_softmax(1)
    exact = (p.exp() * (p - q)).sum()
    for estimator in ("k1", "k3"):
        assert_close((p.exp() * token_kl(p, q, estimator)).sum(), exact, rtol=1e-5, atol=1e-6)


def test_missing_end() -> None:
    score, ended = torch.tensor([2.0, 2.0]), torch.tensor([True, False])
    assert penalise_missing_end(score, ended, None).tolist() == [2.0, 2.0]
    assert penalise_missing_end(score, ended, 1.0).tolist() == [2.0, 1.0]
    assert penalise_missing_end(score, ended, 1.0, "replace").tolist() == [2.0, -1.0]


def test_the_score_lies_on_the_last_token_or_one_later() -> None:
    mask = length_mask(torch.tensor([2, 4]), 4)
    kl, score = torch.full((2, 4), 0.5), torch.tensor([10.0, 20.0])
    assert token_rewards(score, kl, mask, 0.2).tolist() == [
        [pytest.approx(-0.1), pytest.approx(9.9), 0, 0],
        [pytest.approx(-0.1)] * 3 + [pytest.approx(19.9)],
    ]
    later = token_rewards(score, kl, mask, 0.2, "after_last")
    assert later[0].tolist() == [pytest.approx(-0.1), pytest.approx(-0.1), 10.0, 0.0]
    assert later[1, 3] == pytest.approx(19.9), "no room after the last token"
    assert value_mask(mask, "after_last").tolist() == [[True, True, True, False], [True] * 4]
    assert value_mask(mask) is mask


def test_advantages_by_hand() -> None:
    mask = length_mask(torch.tensor([3]), 4)
    rewards, values = torch.tensor([[1.0, 2.0, 3.0, 99.0]]), torch.tensor([[0.5, 0.25, 0.125, 99.0]])
    found = gae(rewards, values, mask, gamma=0.9, lam=0.8)
    d = [1 + 0.9 * 0.25 - 0.5, 2 + 0.9 * 0.125 - 0.25, 3 - 0.125]
    a2 = d[2]
    a1 = d[1] + 0.72 * a2
    a0 = d[0] + 0.72 * a1
    assert_close(found.advantage, torch.tensor([[a0, a1, a2, 0.0]]))
    assert_close(found.returns, torch.tensor([[a0 + 0.5, a1 + 0.25, a2 + 0.125, 0.0]]))


def test_lambda_one_gives_returns_without_values() -> None:
    g = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(2, 3, 5, generator=g)
    mask = length_mask(torch.tensor([5, 3, 1]), 5)
    found = gae(rewards, values, mask, gamma=1.0, lam=1.0)
    to_go = torch.where(mask, rewards, 0.0).flip(1).cumsum(1).flip(1)
    assert_close(found.returns, torch.where(mask, to_go, 0.0), rtol=1e-5, atol=1e-6)


def test_padding_changes_nothing() -> None:
    g = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(2, 3, 5, generator=g)
    mask = length_mask(torch.tensor([5, 3, 1]), 5)
    wide = lambda x, fill: torch.cat([x, torch.full((3, 4), fill)], 1)  # noqa: E731
    narrow = gae(rewards, values, mask)
    wider = gae(wide(rewards, 7.0), wide(values, 7.0), wide(mask, False))
    assert_close(wider.advantage[:, :5], narrow.advantage)
    assert_close(whiten(wide(rewards, 7.0), wide(mask, False))[:, :5], whiten(rewards, mask))


def test_whitening() -> None:
    x, mask = (
        torch.tensor([[1.0, 2.0, 50.0], [6.0, 50.0, 50.0]]),
        torch.tensor([[True, True, False], [True, False, False]]),
    )
    values = torch.tensor([1.0, 2.0, 6.0])
    for unbiased in (False, True):
        wanted = (values - 3) / values.std(correction=int(unbiased))
        found = whiten(x, mask, unbiased=unbiased)
        assert_close(found[mask], wanted, rtol=1e-5, atol=1e-6)
        assert_close(whiten(x, mask, keep_mean=True, unbiased=unbiased)[mask], wanted + 3, rtol=1e-5, atol=1e-6)
        assert not found[~mask].any()
    alone = torch.tensor([[True, False, False], [False, False, False]])
    assert torch.isfinite(whiten(x, alone, unbiased=True)).all(), "one token has no variance, and no NaN"


@pytest.mark.parametrize("value", [0.35, 100.1, 1000.1, 12345.6])
def test_whitened_equal_numbers_are_exactly_zero(value: float) -> None:
    mask = length_mask(torch.tensor([53, 7, 31, 2]), 53)
    advantage = gae(
        torch.zeros(4, 53).scatter(1, mask.sum(1, keepdim=True) - 1, value), torch.zeros(4, 53), mask, lam=1.0
    )
    assert (advantage.advantage[mask] == torch.tensor(value)).all()
    for unbiased in (False, True):
        assert not whiten(advantage.advantage, mask, unbiased=unbiased).any()
        kept = whiten(advantage.advantage, mask, keep_mean=True, unbiased=unbiased)
        assert torch.equal(kept, advantage.advantage) and kept.dtype == torch.float32


def test_clipping_on_both_sides() -> None:
    ratio = torch.tensor([0.5, 1.0, 1.5, 0.5, 1.0, 1.5, 9.0])
    advantage = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0])
    found = policy_terms(ratio.log(), torch.zeros(7), advantage, clip_low=0.2, clip_high=0.3)
    assert_close(found.loss, torch.tensor([-0.5, -1.0, -1.3, 0.8, 1.0, 1.5, 9.0]))
    assert found.clipped.tolist() == [False, False, True, True, False, False, False]
    assert_close(
        policy_terms(ratio.log(), torch.zeros(7), advantage, dual_clip=3.0).loss[-2:], torch.tensor([1.5, 3.0])
    )
    assert_close(found.approx_kl, ratio - 1 - ratio.log())


def test_no_gradient_from_clipped_tokens_and_no_overflow() -> None:
    logprob = torch.tensor([0.0, 1.0, 500.0], requires_grad=True)
    found = policy_terms(logprob, torch.zeros(3), torch.tensor([2.0, 2.0, -1.0]))
    found.loss.sum().backward()
    assert torch.isfinite(found.loss).all()
    assert logprob.grad.tolist() == [-2.0, 0.0, 0.0]


def test_value_loss() -> None:
    value, old, returns = torch.tensor([1.0, 0.1]), torch.zeros(2), torch.tensor([1.0, 1.0])
    assert_close(value_terms(value, old, returns, clip=0.2).loss, torch.tensor([0.32, 0.405]))
    assert value_terms(value, old, returns, clip=0.2).clipped.tolist() == [True, False]
    assert_close(value_terms(value, old, returns, clip=None).loss, torch.tensor([0.0, 0.405]))


def test_weights_of_tokens() -> None:
    length = torch.tensor([4, 1])
    totals = {"tokens": torch.tensor(5.0), "sequences": torch.tensor(2.0), "longest": 10}
    assert_close(token_weights(length, "token", **totals), torch.tensor([0.2, 0.2]))
    assert_close(token_weights(length, "sequence", **totals), torch.tensor([0.125, 0.5]))
    assert_close(token_weights(length, "constant", **totals), torch.tensor([0.05, 0.05]))


def test_explained_variance() -> None:
    g = torch.Generator().manual_seed(0)
    returns, mask = torch.randn(3, 4, generator=g), length_mask(torch.tensor([4, 2, 3]), 4)
    assert explained_variance(returns, returns, mask) == pytest.approx(1.0)
    assert explained_variance(torch.zeros(3, 4), returns, mask) == pytest.approx(0.0, abs=1e-6)


def test_k3_stays_finite_where_the_policy_has_left_the_reference() -> None:
    d = torch.tensor([-200.0, -89.0, -20.0, -1.0, 0.0, 200.0], requires_grad=True)
    kl = token_kl(d, torch.zeros(6), "k3")
    assert kl.isfinite().all()
    (gradient,) = torch.autograd.grad(kl.sum(), d)
    assert gradient.isfinite().all() and gradient[:2].tolist() == [0.0, 0.0]
    assert_close(kl[3:].detach(), torch.tensor([math.e - 2, 0.0, 199.0]))
