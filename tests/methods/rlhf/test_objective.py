"""Switches for what other libraries do otherwise; against those libraries themselves: tests/parity."""

from alignlab.losses.ppo import token_kl
from alignlab.methods.grpo import GrpoMethod
from alignlab.methods.rlhf.objective import Objective
from peer_batch import GROUP, LENGTHS, SCORES, make_batch, noisy_advantage, our_loss
from tiny_policy import make_model

import pytest
import torch
from torch.testing import assert_close


@pytest.mark.parametrize("by_ratio", [False, True])
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_the_penalty_is_finite_far_from_the_reference_and_from_the_old_policy(estimator: str, by_ratio: bool) -> None:
    net, t = make_batch()
    objective = Objective(kl_coefficient=0.1, kl_estimator=estimator, kl_by_ratio=by_ratio)
    far = t.mask & (torch.arange(len(LENGTHS)) == 3)[:, None]
    t.reference, t.logprob = t.reference + 1000.0 * far, t.logprob - 1000.0 * far
    loss = our_loss(objective, net, t, noisy_advantage(t))
    assert loss.isfinite() and torch.autograd.grad(loss, net.logits)[0].isfinite().all()


def test_the_penalty_may_be_bounded() -> None:
    d = torch.tensor([-30.0, -3.0, -2.0, 0.0, 12.0])
    plain = token_kl(d, torch.zeros(5), "k3")
    assert token_kl(d, torch.zeros(5), "k3", most=10.0).tolist() == [10.0, 10.0, plain[2], 0.0, 10.0]
    net, t = make_batch()
    t.reference = t.reference + 5.0 * t.mask
    losses = [
        our_loss(Objective(kl_coefficient=1.0, kl_max=most), net, t, t.mask * 0.0).item() for most in (None, 10.0)
    ]
    assert losses[0] > 50 and losses[1] == pytest.approx(10.0)
    with pytest.raises(ValueError, match="kl_max=0 must be positive"):
        Objective(kl_max=0)


def advantages(t, **settings) -> torch.Tensor:
    settings = {"vocabulary": None, "group_size": GROUP} | settings
    return GrpoMethod(lambda vocabulary: make_model(0), lambda p, r: [], **settings).experience(t, SCORES)[0].advantage


def test_switches_of_advantages() -> None:
    _, t = make_batch()
    plain, fine = advantages(t), advantages(t, scale_epsilon=1e-6)
    deviation = SCORES[:GROUP].std()
    assert_close(fine[0, 0] / plain[0, 0], (deviation + 1e-4) / (deviation + 1e-6))
    with pytest.raises(ValueError, match="scale_epsilon=0 must be positive"):
        advantages(t, scale_epsilon=0)
    biased, unbiased = (advantages(t, kind="reinforce++", unbiased_whitening=u) for u in (False, True))
    tokens = sum(LENGTHS)
    assert_close(biased, unbiased * (tokens / (tokens - 1)) ** 0.5)
    assert biased[t.mask].std(correction=0).item() == pytest.approx(1.0)
