"""Token rewards, advantages, returns, policy and value loss against TRL 1.12's PPOTrainer, on the rollouts that it made itself."""

from pathlib import Path

from alignlab.losses.ppo import (
    gae,
    length_mask,
    penalise_missing_end,
    policy_terms,
    token_kl,
    token_rewards,
    value_mask,
    value_terms,
    whiten,
)
from tiny_policy import END

import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("trl.experimental.ppo", reason="TRL 1.12 is the last with PPO")
import trl_ppo_run

EXACT = {"rtol": 1e-6, "atol": 1e-6}


@pytest.fixture(scope="module", params=[{}, {"kl_estimator": "k3", "whiten_rewards": True, "gamma": 0.9}], ids=str)
def run(request, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, list[dict], dict]:
    return *trl_ppo_run.run(tmp_path_factory.mktemp("trl"), **request.param)[:2], request.param


def test_rewards_advantages_returns(run) -> None:
    theirs, _, settings = run
    length = theirs["sequence_lengths"] + 1
    assert len(set(length.tolist())) > 2 and (length == 8).any(), "ragged, and some fill the whole length"
    mask = length_mask(length, 8)
    assert torch.equal(mask, ~theirs["padding_mask"])
    valued = value_mask(mask, "after_last")
    assert torch.equal(valued, ~theirs["padding_mask_p1"])
    kl = token_kl(theirs["logprobs"], theirs["ref_logprobs"], settings.get("kl_estimator", "k1"))
    assert_close(torch.where(mask, kl, 0.0), theirs["kl"], **EXACT)
    rewards = token_rewards(theirs["scores"], kl, mask, 0.2, "after_last")
    if settings.get("whiten_rewards"):
        assert_close(rewards, theirs["plain_rewards"], **EXACT)
        rewards = whiten(rewards, valued, keep_mean=True, unbiased=True)
    assert_close(rewards, theirs["rewards"], **EXACT)
    found = gae(rewards, theirs["values"], valued, settings.get("gamma", 1.0), 0.95)
    assert_close(found.advantage, theirs["advantages"], **EXACT)
    assert_close(found.returns, theirs["returns"], **EXACT)
    assert_close(whiten(found.advantage, mask, unbiased=True), theirs["whitened"].masked_fill(~mask, 0), **EXACT)


def test_missing_end_penalty(run) -> None:
    theirs, _, _ = run
    ended = (theirs["responses"] == END).any(1)
    assert not ended.all() and ended.any()
    raw = torch.where(ended, theirs["scores"], theirs["scores"] + 1.0)
    assert_close(penalise_missing_end(raw, ended, 1.0), theirs["scores"], **EXACT)


def test_losses_of_every_step(run) -> None:
    theirs, steps, _ = run
    mask, valued = ~theirs["padding_mask"], ~theirs["padding_mask_p1"]
    assert len(steps) == 2
    for step in steps:
        rows = step["micro_batch_inds"]
        m, v = mask[rows], valued[rows]
        terms = policy_terms(step["new_logprobs"], step["mb_logprobs"], step["mb_advantage"])
        assert_close(terms.loss[m].sum() / m.sum(), step["pg_loss"], **EXACT)
        value = value_terms(step["vpred"], step["mb_values"], step["mb_return"])
        assert_close(value.loss[v].sum() / v.sum(), step["vf_loss"], **EXACT)
        assert_close(value.clipped[v].float().mean(), step["vf_clipfrac"], **EXACT)
        assert_close(terms.loss[m].mean() + 0.1 * value.loss[v].mean(), step["loss"], **EXACT)
    assert not torch.equal(steps[1]["new_logprobs"], steps[1]["mb_logprobs"]), "the second step sees a moved policy"


def test_one_update_moves_the_weights_as_theirs(tmp_path: Path) -> None:
    """The whole update on their rollout: same architecture (a trunk for the critic), same conventions, one epoch, plain SGD on both sides."""
    from alignlab.inference.backend import Sampling
    from alignlab.methods.ppo import PpoMethod
    from alignlab.methods.rlhf.kl_controller import KlController
    from alignlab.methods.rlhf.minibatch import Minibatch, Totals
    from alignlab.methods.rlhf.objective import Objective, Statistics
    from alignlab.methods.rlhf.parts import parts_of
    from alignlab.methods.rlhf.rollout import Responses, evaluate
    from alignlab.models.language.actor_critic import ActorCritic
    from tiny_policy import make_model

    theirs, _, trainer = trl_ppo_run.run(tmp_path, num_ppo_epochs=1, optim="sgd", learning_rate=0.5)
    critic = trl_ppo_run.reward_model(8)
    net = ActorCritic(make_model(0), critic=critic.model, frozen_reference=make_model(5))
    with torch.no_grad():
        net.value_head.weight.copy_(critic.score.weight)
    queries, length = theirs["queries"], (theirs["sequence_lengths"] + 1).tolist()
    prompts = [[i for i in row if i != 0] for row in queries.tolist()]
    answers = [row[:n] for row, n in zip(theirs["responses"].tolist(), length, strict=True)]
    unread = [[0.0] * len(a) for a in answers]
    responses = Responses(prompts, answers, [a[-1] == END for a in answers], unread)
    t = evaluate(net, responses, temperature=0.7, micro_batch=3, position="after_last")
    mask = ~theirs["padding_mask"]
    for mine, name in ((t.logprob, "logprobs"), (t.reference, "ref_logprobs")):
        assert_close(mine, torch.where(mask, theirs[name], 0.0), rtol=1e-4, atol=2e-5)
    assert_close(t.value, theirs["values"], rtol=1e-4, atol=2e-5)

    ours = PpoMethod(
        lambda vocabulary: make_model(0),
        lambda p, r: [],
        vocabulary=None,
        kl=KlController(0.2),
        missing_end_penalty=None,
        score_position="after_last",
        unbiased_whitening=True,
    )
    e, _ = ours.experience(t, theirs["scores"])
    assert_close(e.advantage, theirs["whitened"].masked_fill(~mask, 0), rtol=1e-3, atol=1e-4)
    parts = parts_of([[0, 1, 2], list(range(3, 8))], t.lengths, "after_last", t.ids.device)
    valued = value_mask(t.mask, "after_last").sum()
    assert sum(part.num_valued for part in parts) == valued
    totals = Totals(t.length.sum().float(), torch.tensor(8.0), valued.float())
    for part in parts:
        batch = Minibatch.of(t, e, part, totals, Sampling(8, 0.7))
        Objective()(net, batch, Statistics()).backward()
    for module, other in ((net.model, trainer.model.policy), (net.critic, trainer.model.value_model.model)):
        before = dict((make_model(0) if module is net.model else trl_ppo_run.reward_model(8).model).named_parameters())
        for (name, p), q in zip(module.named_parameters(), other.parameters(), strict=True):
            if p.grad is not None:
                step = (before[name] - q.detach()) / 0.5
                assert_close(p.grad, step, rtol=2e-3, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")
