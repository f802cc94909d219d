"""Advantages and losses of PPO, GRPO, SFT, DPO and reward models against OpenRLHF 0.11.2's own functions, values and gradients, on one awkward batch.

OpenRLHF isn't among the project's extras; how to install it beside: docs/fidelity.md.
"""

from types import SimpleNamespace

from alignlab.losses.grpo import group_advantages, leave_one_out, overlong_penalty, reinforce_plus_plus
from alignlab.losses.language_modelling import next_token_loss, token_log_probs
from alignlab.losses.ppo import token_kl
from alignlab.losses.preference import bradley_terry, dpo
from alignlab.methods.rlhf.kl_controller import KlController
from alignlab.methods.rlhf.objective import Objective
from openrlhf_parts import openrlhf_parts
from peer_agreement import agree
from peer_batch import (
    GROUP,
    LENGTHS,
    LONGEST,
    SCORES,
    log_probs,
    logits,
    make_batch,
    noisy_advantage,
    our_loss,
    preset,
    states,
    values,
)

import pytest
import torch

peer = openrlhf_parts()
NET, T = make_batch()
MASK = T.mask.float()
ALL = (NET.logits,)


def experience(estimator: str, kl: float = 0.0, scores: torch.Tensor = SCORES, group: int = GROUP):
    """What OpenRLHF's experience maker makes of the rollout."""
    advantage = SimpleNamespace(estimator=estimator, gamma=1.0, lambd=0.95, no_std_norm=False)
    args = SimpleNamespace(
        algo=SimpleNamespace(advantage=advantage),
        rollout=SimpleNamespace(n_samples_per_prompt=group),
        reward=SimpleNamespace(clip_range=None),
    )
    maker = peer.experience_maker.RemoteExperienceMaker(
        None, None, None, None, peer.kl_controller.FixedKLController(kl), SimpleNamespace(args=args), None
    )
    size = len(scores)
    given = peer.experience.Experience(
        action_mask=T.mask[:size], values=T.value[:size], rewards=scores.clone(), index=list(range(size))
    )
    given.kl = peer.utils.compute_approx_kl(T.logprob, T.reference, kl_estimator="k1")[:size]
    (found,) = maker.compute_advantages_and_returns([given])
    return found


def policy_loss(advantage: torch.Tensor, sampled: torch.Tensor | None = None, **settings) -> torch.Tensor:
    return peer.loss.PolicyLoss(**settings)(log_probs(NET, T), T.logprob, advantage, MASK, sampled)[0]


@pytest.mark.parametrize(
    ("words", "estimator", "kl", "changes"),
    [
        ("grpo", "group_norm", 0.0, {"group_size": GROUP, "scale_epsilon": 1e-9}),
        ("dr_grpo", "dr_grpo", 0.0, {"group_size": GROUP}),
        ("rloo", "rloo", 0.0, {"kl_in_reward": 0.0}),
        ("reinforce_plus_plus", "reinforce", 0.01, {}),
        ("reinforce_plus_plus", "reinforce_baseline", 0.01, {"group_size": GROUP, "group_baseline": True}),
    ],
)
def test_advantages_without_a_critic(words: str, estimator: str, kl: float, changes: dict) -> None:
    """OpenRLHF adds 1e-9 to GRPO's deviation where TRL and we add 1e-4: `model.scale_epsilon=1e-9`."""
    found = preset(f"model={words}", **changes).experience(T, SCORES)[0].advantage
    group = 1 if estimator == "reinforce" else GROUP
    agree(f"{words} advantages, {estimator}", found, experience(estimator, kl, group=group).advantages * MASK)


def test_rloo_with_a_kl_penalty() -> None:
    """OpenRLHF keeps each token's KL out of the baseline; the paper's reward is the response's, KL included, as in TRL, verl and here."""
    found = preset("model=rloo", kl_in_reward=0.05).experience(T, SCORES)[0].advantage
    size = (found - experience("rloo", 0.05).advantages * MASK).abs().max().item()
    print(f"rloo with KL in the reward: {size:.1e}")
    assert size > 1e-3


def test_ppo_advantages_and_returns() -> None:
    e, _ = preset("model=ppo", missing_end_penalty=None, kl=KlController(0.1, limit=10.0)).experience(T, SCORES)
    wanted = experience("gae", 0.1, group=1)
    agree("ppo advantages", e.advantage, wanted.advantages * MASK)
    agree("ppo returns", e.returns, wanted.returns * MASK)


@pytest.mark.parametrize("aggregation", ["token", "sequence"])
@pytest.mark.parametrize("dual_clip", [None, 1.05])
def test_policy_loss(aggregation: str, dual_clip: float | None) -> None:
    advantage = noisy_advantage(T)
    found = our_loss(Objective(aggregation=aggregation, clip_high=0.28, dual_clip=dual_clip), NET, T, advantage)
    settings = {"clip_eps_high": 0.28, "dual_clip": dual_clip, "token_level_loss": aggregation == "token"}
    agree(f"policy loss, {aggregation}, dual clip {dual_clip}", found, policy_loss(advantage, **settings), ALL)


@pytest.mark.parametrize(
    ("words", "estimator", "clip_high"), [("dapo", "group_norm", 0.28), ("grpo", "group_norm", 0.2)]
)
def test_presets(words: str, estimator: str, clip_high: float) -> None:
    method = preset(f"model={words}", group_size=GROUP, scale_epsilon=1e-9)
    kl = peer.utils.compute_approx_kl(log_probs(NET, T), T.reference, kl_estimator="k3")
    penalty = method.objective.kl_coefficient * peer.loss.aggregate_loss(kl, MASK)
    found = our_loss(method.objective, NET, T, method.experience(T, SCORES)[0].advantage)
    wanted = policy_loss(experience(estimator).advantages * MASK, clip_eps_high=clip_high) + penalty
    agree(words, found, wanted, ALL)


def test_gspo() -> None:
    method = preset("model=gspo", group_size=GROUP)
    advantage = method.experience(T, SCORES)[0].advantage
    wanted = policy_loss(advantage, policy_loss_type="gspo", clip_eps_low=3e-4, clip_eps_high=4e-4)
    agree("gspo", our_loss(method.objective, NET, T, advantage), wanted, ALL)


def test_truncated_importance_sampling() -> None:
    advantage = noisy_advantage(T)
    settings = {"is_correction_level": "token", "is_correction_mode": "clip", "is_correction_threshold": (0.0, 1.2)}
    found = our_loss(Objective(sampler_ratio_max=1.2), NET, T, advantage)
    agree("truncated importance sampling", found, policy_loss(advantage, T.sampled, **settings), ALL)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_kl_estimators(estimator: str) -> None:
    """OpenRLHF stops all of them at 10, and with it the gradient: `model.objective.kl_max=10`; ours stay finite without."""
    now = log_probs(NET, T)
    wanted = peer.utils.compute_approx_kl(now, T.reference, kl_estimator=estimator)
    agree(f"{estimator} near the reference", token_kl(now, T.reference, estimator), wanted, ALL)
    far = torch.tensor([-1000.0, -80.0, -9.0, -3.0, -2.0, 0.0, 5.0, 12.0, 1000.0], requires_grad=True)
    zero = torch.zeros_like(far)
    wanted = peer.utils.compute_approx_kl(far, zero, kl_estimator=estimator)
    agree(f"{estimator} far from it, up to 10", token_kl(far, zero, estimator, most=10.0), wanted, (far,))
    found = token_kl(far, zero, estimator)
    assert found.isfinite().all() and torch.autograd.grad(found.sum(), far)[0].isfinite().all()
    assert not torch.equal(found, wanted)


def test_unbiased_gradient_of_the_kl() -> None:
    """OpenRLHF's `unbiased_gradient` is `model.objective.kl_by_ratio=true`: the same gradient, off the policy too; the value shown is the plain one there."""
    now = log_probs(NET, T)
    wanted = peer.utils.compute_approx_kl(now, T.reference, T.logprob, "k3", unbiased_gradient=True)
    found = token_kl(now, T.reference, "k3") * (now - T.logprob).exp()
    mine, other = (torch.autograd.grad(x.sum(), NET.logits, retain_graph=True)[0] for x in (found, wanted))
    agree("gradient of the unbiased KL", mine, other)


def test_value_loss_and_entropy() -> None:
    returns = torch.where(T.mask, T.value + 0.5, 0.0)
    wanted = peer.loss.ValueLoss(clip_eps=0.2)(values(NET, T), T.value, returns, MASK)
    with torch.compiler.set_stance("force_eager"):
        entropy = peer.loss.aggregate_loss(peer.utils.compute_entropy(logits(NET, T)), MASK)
    advantage = noisy_advantage(T)
    found = our_loss(Objective(value_coefficient=0.7, entropy_coefficient=0.05), NET, T, advantage, value=True)
    wanted = policy_loss(advantage) + 0.7 * wanted - 0.05 * entropy
    agree("value loss and entropy", found, wanted, (NET.logits, NET.values))


def test_sft() -> None:
    rows = torch.arange(len(LENGTHS))[:, None].expand_as(T.mask)[T.mask]
    chosen, target = NET.logits[rows, states(T)[T.mask]], T.ids.gather(1, states(T) + 1)
    found = next_token_loss(token_log_probs(chosen, NET.head, target[T.mask]), across_ranks=False)
    labels = torch.full_like(T.ids, -100)
    labels[rows, states(T)[T.mask] + 1] = target[T.mask]
    agree("sft", found, peer.loss.GPTLMLoss()(NET.logits, labels), ALL)
    now = NET.logits[torch.arange(len(LENGTHS))[:, None], states(T)].log_softmax(-1).gather(-1, target[..., None])
    agree("sft by tokens", found, peer.loss.SFTLoss()(now.squeeze(-1), MASK), ALL)


def pairs() -> list[torch.Tensor]:
    """Log-probabilities of 6 pairs under policy and reference, nats."""
    g = torch.Generator().manual_seed(5)
    return [(-20 * torch.rand(6, generator=g, dtype=torch.float64)).requires_grad_(n < 2) for n in range(4)]


def test_reward_model() -> None:
    chosen, rejected, margin, _ = pairs()
    ones = torch.ones_like(chosen)
    for each in (None, margin):
        found = bradley_terry(chosen, rejected, ones, margin=each)
        wanted = peer.loss.PairWiseLoss()(chosen, rejected, each)
        agree(f"bradley-terry, margin {each is not None}", found, wanted, (chosen, rejected))


@pytest.mark.parametrize(("kind", "smoothing"), [("dpo", 0.0), ("cdpo", 0.1), ("ipo", 0.0)])
def test_dpo(kind: str, smoothing: float) -> None:
    """OpenRLHF's IPO has sums over tokens where its authors, TRL and we have means: no switch, the same where a response is one token."""
    chosen, rejected, before, after = pairs()
    ones = torch.ones_like(chosen)
    settings = {"beta": 0.3, "kind": kind, "label_smoothing": smoothing, "first_length": ones, "second_length": ones}
    found = dpo(chosen, rejected, before, after, **settings)
    wanted, *rewards = peer.loss.DPOLoss(0.3, smoothing, kind == "ipo")(chosen, rejected, before, after)
    agree(kind, found.loss.mean(), wanted, (chosen, rejected))
    agree(f"{kind} rewards", torch.stack(found[1:]), torch.stack(rewards))
    if kind == "ipo":
        longer = dpo(chosen, rejected, before, after, **settings | {"first_length": 5 * ones}).loss.mean()
        assert (longer - wanted).abs() > 0.1


def test_overlong_penalty() -> None:
    given = SimpleNamespace(response_length=T.length, rewards=torch.zeros(len(LENGTHS)))
    peer.length_penalty.apply_overlong_penalty([given], LONGEST, 4)
    agree("overlong penalty", overlong_penalty(T.length, LONGEST, 4), given.rewards)


def test_kl_controller() -> None:
    mine, other = (
        KlController(0.2, target=0.1, unit="token", horizon=1000),
        peer.kl_controller.AdaptiveKLController(0.2, 0.1, 1000),
    )
    for kl in (0.05, 0.1, 0.13, 3.0):
        mine.update(per_sequence=kl * 9, per_token=kl, responses=64)
        other.update(kl, 64)
        assert mine.coefficient == pytest.approx(other.value, rel=1e-12)


@pytest.mark.parametrize("score", [0.1, 100.1, 1000.1])
def test_equal_rewards(score: float) -> None:
    """Ours are exactly 0; OpenRLHF's are said."""
    largest = dict.fromkeys(("group_norm", "rloo", "reinforce_baseline", "reinforce"), 0.0)
    for size in (3, 4, 5, 7, 8, 12):
        scores = torch.full((size,), score)
        assert not group_advantages(scores, size).any() and not leave_one_out(scores, size).any()
        on = torch.zeros(size, LONGEST).scatter(1, T.length[:size, None] - 1, score)
        assert not reinforce_plus_plus(on, T.mask[:size]).any()
        for estimator, before in largest.items():
            group = 1 if estimator == "reinforce" else size
            found = experience(estimator, 0.0, scores, group).advantages[T.mask[:size]]
            largest[estimator] = max(before, found.abs().max().item())
    print(f"{score} for all: OpenRLHF's largest advantages {largest}")
