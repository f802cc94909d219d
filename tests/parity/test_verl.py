"""Advantages and losses of PPO, GRPO and their relatives against verl 0.9.1's own functions, values and gradients, on one awkward batch.

verl isn't among the project's extras; how to install it beside: docs/fidelity.md. Nothing of it is replaced.
"""

from alignlab.losses.grpo import group_advantages, leave_one_out, reinforce_plus_plus
from alignlab.losses.language_modelling import next_token_loss, token_log_probs
from alignlab.losses.ppo import gae, token_kl, token_rewards, whiten
from alignlab.methods.rlhf.kl_controller import KlController
from alignlab.methods.rlhf.objective import Objective
from peer_agreement import agree
from peer_batch import (
    GROUP,
    LENGTHS,
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

pytest.importorskip("verl.trainer.ppo.core_algos", reason="see docs/fidelity.md", exc_type=ImportError)
from tensordict import TensorDict
from verl.trainer.config.algorithm import AlgoConfig
from verl.trainer.ppo import core_algos as core
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights
from verl.utils import torch_functional
from verl.utils.dataset.dataset_utils import DatasetPadMode
from verl.utils.tensordict_utils import assign_non_tensor
from verl.workers.config import ActorConfig
from verl.workers.utils.losses import sft_loss

NET, T = make_batch()
MASK = T.mask.float()
INDEX = [str(i // GROUP) for i in range(len(SCORES))]
ALL = (NET.logits,)


def token_level(scores: torch.Tensor = SCORES, kl: float = 0.0) -> torch.Tensor:
    """Token-level rewards as verl's trainer makes them: the score on the last token, less the KL penalty."""
    last = torch.zeros_like(MASK).scatter(1, T.length[:, None] - 1, scores[:, None])
    return last - kl * core.kl_penalty(T.logprob, T.reference, "kl") * MASK


def theirs(advantage: torch.Tensor, name: str = "vanilla", mode: str = "token-mean", weights=None, **clips: float):
    config = ActorConfig(strategy="fsdp", rollout_n=GROUP, ppo_micro_batch_size_per_gpu=1, **clips)
    found = core.get_policy_loss_fn(name)(T.logprob, log_probs(NET, T), advantage, MASK, mode, config, weights)
    return found[0]


@pytest.mark.parametrize("verls_epsilon", [False, True])
def test_grpo_advantages(verls_epsilon: bool) -> None:
    """verl adds 1e-6 to the deviation where TRL and we add 1e-4: `model.scale_epsilon=1e-6`."""
    found = preset("model=grpo", group_size=GROUP, **({"scale_epsilon": 1e-6} if verls_epsilon else {}))
    advantage, (wanted, _) = (
        found.experience(T, SCORES)[0].advantage,
        core.compute_grpo_outcome_advantage(token_level(), MASK, INDEX),
    )
    if verls_epsilon:
        agree("grpo advantages", advantage, wanted)
        return
    size = ((advantage - wanted).abs().max() / wanted.abs().max()).item()
    print(f"grpo advantages as they stand: {size:.1e} relative")
    assert 1e-5 < size < 1e-3


def test_dr_grpo_advantages() -> None:
    found = preset("model=dr_grpo", group_size=GROUP).experience(T, SCORES)[0].advantage
    wanted, _ = core.compute_grpo_outcome_advantage(token_level(), MASK, INDEX, norm_adv_by_std_in_grpo=False)
    agree("dr_grpo advantages", found, wanted)


@pytest.mark.parametrize("kl", [0.0, 0.05])
def test_rloo_advantages(kl: float) -> None:
    found = preset("model=rloo", kl_in_reward=kl).experience(T, SCORES)[0].advantage
    agree(f"rloo advantages, kl {kl}", found, core.compute_rloo_outcome_advantage(token_level(kl=kl), MASK, INDEX)[0])


@pytest.mark.parametrize(("baseline", "kl"), [(False, 0.0), (False, 0.01), (True, 0.0)])
def test_reinforce_plus_plus_advantages(baseline: bool, kl: float) -> None:
    """verl divides the variance by n - 1, OpenRLHF and we by n: `model.unbiased_whitening=true`."""
    settings = {"kl_in_reward": kl} | ({"group_size": GROUP, "group_baseline": True} if baseline else {})
    mine = [
        preset("model=reinforce_plus_plus", unbiased_whitening=unbiased, **settings).experience(T, SCORES)[0].advantage
        for unbiased in (True, False)
    ]
    if baseline:
        wanted, _ = core.compute_reinforce_plus_plus_baseline_outcome_advantage(token_level(), MASK, INDEX)
    else:
        wanted, _ = core.compute_reinforce_plus_plus_outcome_advantage(token_level(kl=kl), MASK, AlgoConfig(gamma=1.0))
    agree(f"reinforce++ advantages, baseline {baseline}, kl {kl}", mine[0], wanted)
    tokens = sum(LENGTHS)
    torch.testing.assert_close(mine[1], mine[0] * (tokens / (tokens - 1)) ** 0.5)


def test_baseline_with_a_kl_penalty() -> None:
    """With `group_baseline` verl spreads score and KL of a response over all its tokens; OpenRLHF and we keep a token's KL on its token."""
    method = preset(
        "model=reinforce_plus_plus", kl_in_reward=0.1, group_size=GROUP, group_baseline=True, unbiased_whitening=True
    )
    found = method.experience(T, SCORES)[0].advantage
    wanted, _ = core.compute_reinforce_plus_plus_baseline_outcome_advantage(token_level(kl=0.1), MASK, INDEX)
    print(f"reinforce++ with a baseline and KL: {(found - wanted).abs().max():.1e}")
    assert (found - wanted).abs().max() > 0.01


def test_ppo_advantages_and_returns() -> None:
    """verl's whitening is unbiased: `model.unbiased_whitening=true`."""
    method = preset("model=ppo", missing_end_penalty=None, unbiased_whitening=True, kl=KlController(0.1))
    e, _ = method.experience(T, SCORES)
    wanted, returns = core.compute_gae_advantage_return(token_level(kl=0.1), T.value, MASK, 1.0, 0.95)
    agree("ppo advantages", e.advantage, wanted * MASK)
    agree("ppo returns", e.returns, returns * MASK)
    plain = gae(token_rewards(SCORES, token_kl(T.logprob, T.reference), T.mask, 0.1), T.value, T.mask)
    size = (whiten(plain.advantage, T.mask) - wanted * MASK).abs().max().item()
    print(f"ppo advantages as they stand: {size:.1e}")
    assert 1e-3 < size < 0.1


@pytest.mark.parametrize("aggregation", ["token", "sequence", "constant"])
@pytest.mark.parametrize("dual_clip", [3.0, 1.05])
def test_policy_loss(aggregation: str, dual_clip: float) -> None:
    """verl's dual clip can't be switched off; ours is off by default: `model.objective.dual_clip=3`."""
    mode = {"token": "token-mean", "sequence": "seq-mean-token-mean", "constant": "seq-mean-token-sum-norm"}
    advantage = noisy_advantage(T)
    found = our_loss(Objective(aggregation=aggregation, clip_high=0.28, dual_clip=dual_clip), NET, T, advantage)
    wanted = theirs(advantage, mode=mode[aggregation], clip_ratio_high=0.28, clip_ratio_c=dual_clip)
    agree(f"policy loss, {aggregation}, dual clip {dual_clip}", found, wanted, ALL)
    if dual_clip < 2:
        assert (our_loss(Objective(aggregation=aggregation, clip_high=0.28), NET, T, advantage) - wanted).abs() > 1e-3


@pytest.mark.parametrize(("words", "mode"), [("dapo", "token-mean"), ("dr_grpo", "seq-mean-token-sum-norm")])
def test_presets(words: str, mode: str) -> None:
    method = preset(f"model={words}", group_size=GROUP, scale_epsilon=1e-6)
    advantage, clip_high = method.experience(T, SCORES)[0].advantage, 0.28 if words == "dapo" else 0.2
    agree(
        words,
        our_loss(method.objective, NET, T, advantage),
        theirs(advantage, mode=mode, clip_ratio_high=clip_high),
        ALL,
    )


def test_gspo() -> None:
    method = preset("model=gspo", group_size=GROUP)
    advantage = method.experience(T, SCORES)[0].advantage
    wanted = theirs(advantage, "gspo", "seq-mean-token-mean", clip_ratio_low=3e-4, clip_ratio_high=4e-4)
    agree("gspo", our_loss(method.objective, NET, T, advantage), wanted, ALL)


def test_truncated_importance_sampling() -> None:
    advantage = noisy_advantage(T)
    weights, _ = compute_rollout_correction_weights((T.logprob - T.sampled), MASK, "token", 1.2)
    assert (weights[T.mask] == 1.2).any() and (weights[T.mask] < 1).any()
    found = our_loss(Objective(sampler_ratio_max=1.2, dual_clip=3.0), NET, T, advantage)
    agree("truncated importance sampling", found, theirs(advantage, weights=weights), ALL)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_kl_in_the_loss(estimator: str) -> None:
    advantage, now = noisy_advantage(T), log_probs(NET, T)
    penalty = core.agg_loss(core.kl_penalty(now, T.reference, estimator), MASK, "token-mean")
    found = our_loss(Objective(dual_clip=3.0, kl_coefficient=0.1, kl_estimator=estimator), NET, T, advantage)
    agree(f"kl in the loss, {estimator}", found, theirs(advantage) + 0.1 * penalty, ALL)


def test_straight_through_kl() -> None:
    """verl's `k3+` shows k3 and has the gradient of k2: `model.objective.kl_estimator=k2`."""
    now = log_probs(NET, T)
    found, wanted = token_kl(now, T.reference, "k2"), core.kl_penalty(now, T.reference, "k3+")
    mine, other = (torch.autograd.grad(x.sum(), NET.logits, retain_graph=True)[0] for x in (found, wanted))
    agree("gradient of k3+", mine, other)


def test_far_from_the_reference() -> None:
    """k3 stays finite on both sides; verl's stops at 10 and with it the gradient: `model.objective.kl_max=10`."""
    far = torch.tensor([-1000.0, -80.0, -20.0, -3.0, -2.0, 0.0, 5.0, 12.0, 1000.0], requires_grad=True)
    reference = torch.zeros_like(far)
    found, wanted = token_kl(far, reference, "k3"), core.kl_penalty(far, reference, "low_var_kl")
    assert found.isfinite().all() and torch.autograd.grad(found.sum(), far, retain_graph=True)[0].isfinite().all()
    assert (found[:4] > 2 * (wanted[:4] - 2)).all() and found[2] > 4e8
    assert not torch.autograd.grad(wanted[:4].sum(), far, retain_graph=True)[0].any(), "nothing pulls back"
    agree("k3 up to 10", token_kl(far, reference, "k3", most=10.0), wanted, (far,))


def test_value_loss_and_entropy() -> None:
    advantage, now = noisy_advantage(T), values(NET, T)
    returns = torch.where(T.mask, T.value + 0.5, 0.0)
    wanted, _ = core.compute_value_loss(now, returns, T.value, MASK, 0.2)
    entropy = core.agg_loss(torch_functional.entropy_from_logits(logits(NET, T)), MASK, "token-mean")
    found = our_loss(
        Objective(dual_clip=3.0, value_coefficient=0.7, entropy_coefficient=0.05), NET, T, advantage, value=True
    )
    agree("value loss and entropy", found, theirs(advantage) + 0.7 * wanted - 0.05 * entropy, (NET.logits, NET.values))


def test_sft() -> None:
    rows = torch.arange(len(LENGTHS))[:, None].expand_as(T.mask)[T.mask]
    chosen, target = NET.logits[rows, states(T)[T.mask]], T.ids.gather(1, states(T) + 1)
    found = next_token_loss(token_log_probs(chosen, NET.head, target[T.mask]), across_ranks=False)
    now = NET.logits[torch.arange(len(LENGTHS))[:, None], states(T)].log_softmax(-1).gather(-1, target[..., None])
    data = TensorDict({"response_mask": T.mask}, batch_size=len(LENGTHS))
    assign_non_tensor(data, pad_mode=DatasetPadMode.LEFT_RIGHT, dp_size=1, batch_num_tokens=sum(LENGTHS))
    wanted, _ = sft_loss(None, {"log_probs": now.squeeze(-1)}, data)
    agree("sft", found, wanted, ALL)


def test_kl_controller() -> None:
    mine, other = KlController(0.2, target=0.1, unit="token", horizon=1000), core.AdaptiveKLController(0.2, 0.1, 1000)
    for kl in (0.05, 0.1, 0.13, 3.0):
        mine.update(per_sequence=kl * 9, per_token=kl, responses=64)
        other.update(kl, 64)
        assert mine.coefficient == pytest.approx(other.value, rel=1e-12)


@pytest.mark.parametrize("score", [0.1, 100.1, 1000.1])
def test_equal_rewards(score: float) -> None:
    """Ours are exactly 0; verl's are said."""
    largest = {"grpo": 0.0, "rloo": 0.0, "reinforce++": 0.0}
    for size in (3, 4, 5, 7, 8, 16):
        scores, mask = torch.full((size,), score), torch.ones(size, 1)
        index, on = ["0"] * size, scores[:, None]
        assert not group_advantages(scores, size).any() and not leave_one_out(scores, size).any()
        assert not reinforce_plus_plus(on, mask.bool()).any()
        found = (
            core.compute_grpo_outcome_advantage(on.clone(), mask, index),
            core.compute_rloo_outcome_advantage(on.clone(), mask, index),
            core.compute_reinforce_plus_plus_outcome_advantage(on.clone(), mask, AlgoConfig(gamma=1.0)),
        )
        largest = {k: max(v, x[0].abs().max().item()) for (k, v), x in zip(largest.items(), found, strict=True)}
    print(f"{score} for all: verl's largest advantages {largest}")
