"""PPO for language models (arXiv:1707.06347, arXiv:1909.08593): a critic, GAE, a KL penalty on every token.

Legend: B responses of this process, T response tokens of the longest.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from alignlab.distributed.collectives import reduce_mean
from alignlab.losses.ppo import (
    MissingEnd,
    explained_variance,
    gae,
    masked_moments,
    penalise_missing_end,
    token_kl,
    token_rewards,
    value_mask,
    whiten,
)
from alignlab.methods.rewards.scoring import filled_up
from alignlab.methods.rlhf.kl_controller import KlController
from alignlab.methods.rlhf.minibatch import Experience
from alignlab.methods.rlhf.on_policy import OnPolicyMethod
from alignlab.methods.rlhf.reward import Function, Reward
from alignlab.methods.rlhf.rollout import Trajectory
from alignlab.methods.rlhf.score_scale import ScoreScale
from alignlab.models.language.actor_critic import Critic


class PpoMethod(OnPolicyMethod):
    """Trains a policy and its critic against a reward; see `OnPolicyMethod` for what is not listed here.

    Args:
        net: as in `OnPolicyMethod`.
        reward: as in `OnPolicyMethod`.
        critic: "shared": a head on the policy's states; "separate": a trunk (with adapters an adapter) of its own.
        kl: KL penalty in the token rewards: coefficient, controller, estimator.
        score_clip, score_scale: scores are clamped to +-score_clip after "running" division by their deviation so far;
            None and "none" leave them.
        missing_end_penalty, missing_end: for responses that were cut: subtracted from the score, or instead of it.
        gamma, lam: of the advantages.
        whiten_rewards, whiten_advantages, unbiased_whitening: over all tokens of all ranks; rewards keep their mean.
    """

    def __init__(
        self,
        net: Callable[..., nn.Module],
        reward: str | Function | Reward | Mapping[str, Any],
        *,
        critic: Critic = "shared",
        kl: KlController | None = None,
        score_clip: float | None = None,
        score_scale: Literal["none", "running"] = "none",
        missing_end_penalty: float | None = 1.0,
        missing_end: MissingEnd = "subtract",
        gamma: float = 1.0,
        lam: float = 0.95,
        whiten_rewards: bool = False,
        whiten_advantages: bool = True,
        unbiased_whitening: bool = False,
        **settings: Any,
    ) -> None:
        if critic == "none":
            raise ValueError("critic=none: PPO needs a critic; GRPO goes without")
        super().__init__(net, reward, critic=critic, group_size=1, **settings)
        self.kl = kl or KlController()
        self.scale = ScoreScale(score_scale, score_clip)
        self.missing_end_penalty, self.missing_end = missing_end_penalty, missing_end
        self.gamma, self.lam = gamma, lam
        self.whiten_rewards, self.whiten_advantages = whiten_rewards, whiten_advantages
        self.unbiased_whitening = unbiased_whitening

    def experience(self, t: Trajectory, score: Tensor) -> tuple[Experience, dict[str, Tensor]]:
        """Token rewards, GAE, whitening; the controller sees this rollout's KL after the update."""
        score, kept = filled_up(score, len(score))
        score = penalise_missing_end(self.scale(score), t.ended, self.missing_end_penalty, self.missing_end)
        kl = torch.where(t.mask, token_kl(t.logprob, t.reference, self.kl.estimator, self.kl.limit), 0.0)
        valued = value_mask(t.mask, self.score_position)
        rewards = token_rewards(score, kl, t.mask, self.kl.coefficient, self.score_position)
        if self.whiten_rewards:
            rewards = whiten(rewards, valued, keep_mean=True, unbiased=self.unbiased_whitening)
        estimate = gae(rewards, t.value, valued, self.gamma, self.lam)
        advantage = torch.where(t.mask, estimate.advantage, 0.0)
        if self.whiten_advantages:
            advantage = whiten(advantage, t.mask & kept[:, None], unbiased=self.unbiased_whitening)
        returns = torch.where(kept[:, None], estimate.returns, t.value)  # the critic stays where it was
        metrics = self.objective_metrics(t, score, kl) | {
            "ppo/explained_variance": explained_variance(t.value, estimate.returns, valued & kept[:, None]),
            "ppo/value": masked_moments(t.value, valued)[0],
            "ppo/return": masked_moments(estimate.returns, valued)[0],
        }
        return Experience(advantage, returns, kept.float()), metrics

    def objective_metrics(self, t: Trajectory, score: Tensor, kl: Tensor) -> dict[str, Tensor]:
        """KL, entropy and reward of whole responses."""
        sums = torch.stack(
            [
                torch.where(t.mask, t.logprob - t.reference, 0.0).sum() / len(score),
                torch.where(t.mask, t.entropy, 0.0).sum() / len(score),
                -self.kl.coefficient * kl.sum() / len(score),
                score.mean(),
            ]
        )
        k1, entropy, penalty, mean_score = reduce_mean(sums)
        return {
            "objective/kl": k1,
            "objective/entropy": entropy,
            "objective/non_score_reward": penalty,
            "objective/rlhf_reward": penalty + mean_score,
            "objective/kl_coefficient": torch.full_like(k1, self.kl.coefficient),
        }

    def learn_from(self, metrics: dict[str, float], responses: int) -> None:
        """Adapts the KL coefficient."""
        per_sequence = metrics["objective/kl"]
        per_token = per_sequence / max(metrics["objective/response_length"], 1e-9)
        self.kl.update(per_sequence=per_sequence, per_token=per_token, responses=responses)

    def saved(self) -> dict[str, Any]:
        """The KL coefficient and the scores' moments.

        Seeds are functions of the update's number: they need nothing.
        """
        return {"rlhf": {"kl": self.kl.state_dict(), "scale": self.scale.state_dict()}}

    def restore(self, checkpoint: Mapping[str, Any]) -> None:
        if state := checkpoint.get("rlhf"):
            self.kl.load_state_dict(state["kl"])
            self.scale.load_state_dict(state["scale"])
