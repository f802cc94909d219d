"""PPO for language models (arXiv:1707.06347, arXiv:1909.08593): a critic, GAE, a KL penalty on every token.

Legend: B responses of this process, T response tokens of the longest.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from alignlab.distributed.collectives import reduce_mean
from alignlab.losses.ppo import (
    MissingEnd,
    ScorePosition,
    explained_variance,
    gae,
    masked_moments,
    penalise_missing_end,
    token_kl,
    token_rewards,
    value_mask,
    whiten,
)
from alignlab.models.language.actor_critic import Critic
from alignlab.systems.rlhf.kl_controller import KlController
from alignlab.systems.rlhf.objective import Experience, Objective
from alignlab.systems.rlhf.on_policy import OnPolicySystem
from alignlab.systems.rlhf.reward import Function, Reward
from alignlab.systems.rlhf.rollout import Trajectory
from alignlab.systems.rlhf.score_scale import ScoreScale
from alignlab.systems.rlhf.update import Update
from alignlab.types.language import LanguageVocabulary


class PpoSystem(OnPolicySystem):
    """Trains a policy and its critic against a reward; see `OnPolicySystem` for what is not listed here.

    Parameters
    ----------
    objective
        policy and value loss.
    kl
        KL penalty in the token rewards: coefficient, controller, estimator.
    score_clip, score_scale
        scores are clamped to +-score_clip after "running" division by their deviation so far; None and "none" leave them.
    missing_end_penalty, missing_end
        for responses that were cut: subtracted from the score, or instead of it.
    score_position
        token that the score is added to: the last one, or ("after_last") the place after it, as TRL has it.
    gamma, lam
        of the advantages.
    whiten_rewards, whiten_advantages, unbiased_whitening
        over all tokens of all ranks; rewards keep their mean.
    """

    def __init__(
        self,
        net: Callable[..., nn.Module],
        reward: str | Function | Reward,
        *,
        peft: Callable[..., nn.Module] | None = None,
        critic: Critic = "shared",
        vocabulary: LanguageVocabulary,
        optim: Callable[..., dict],
        objective: Objective | None = None,
        update: Update | None = None,
        kl: KlController | None = None,
        score_clip: float | None = None,
        score_scale: Literal["none", "running"] = "none",
        missing_end_penalty: float | None = 1.0,
        missing_end: MissingEnd = "subtract",
        score_position: ScorePosition = "last",
        gamma: float = 1.0,
        lam: float = 0.95,
        whiten_rewards: bool = False,
        whiten_advantages: bool = True,
        unbiased_whitening: bool = False,
        judge: str | Function | Reward | None = None,
        response_length: int = 53,
        temperature: float = 1.0,
        backend: Callable[..., Any] | None = None,
        stop_ids: tuple[int, ...] = (),
        seed: int = 0,
        export_merged: bool = True,
    ) -> None:
        super().__init__(
            net,
            reward,
            peft=peft,
            critic=critic,
            vocabulary=vocabulary,
            optim=optim,
            objective=objective,
            update=update,
            judge=judge,
            response_length=response_length,
            temperature=temperature,
            backend=backend,
            stop_ids=stop_ids,
            seed=seed,
            score_position=score_position,
            export_merged=export_merged,
        )
        if critic == "none":
            raise ValueError("model.critic=none: PPO needs a critic; model=grpo goes without")
        self.kl = kl or KlController()
        self.scale = ScoreScale(score_scale, score_clip)
        self.missing_end_penalty, self.missing_end = missing_end_penalty, missing_end
        self.gamma, self.lam = gamma, lam
        self.whiten_rewards, self.whiten_advantages = whiten_rewards, whiten_advantages
        self.unbiased_whitening = unbiased_whitening

    def experience(self, t: Trajectory, score: Tensor) -> tuple[Experience, dict[str, Tensor]]:
        """Token rewards, GAE, whitening; the controller sees this rollout's KL after the update."""
        score = penalise_missing_end(self.scale(score), t.ended, self.missing_end_penalty, self.missing_end)
        kl = torch.where(t.mask, token_kl(t.logprob, t.reference, self.kl.estimator, self.kl.limit), 0.0)
        valued = value_mask(t.mask, self.score_position)
        rewards = token_rewards(score, kl, t.mask, self.kl.coefficient, self.score_position)
        if self.whiten_rewards:
            rewards = whiten(rewards, valued, keep_mean=True, unbiased=self.unbiased_whitening)
        found = gae(rewards, t.value, valued, self.gamma, self.lam)
        advantage = torch.where(t.mask, found.advantage, 0.0)
        if self.whiten_advantages:
            advantage = whiten(advantage, t.mask, unbiased=self.unbiased_whitening)
        metrics = self.objective_metrics(t, score, kl) | {
            "ppo/explained_variance": explained_variance(t.value, found.returns, valued),
            "ppo/value": masked_moments(t.value, valued)[0],
            "ppo/return": masked_moments(found.returns, valued)[0],
        }
        return Experience(advantage, found.returns, torch.ones_like(score)), metrics

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

    def remembered(self) -> dict[str, Any]:
        """The KL coefficient and the scores' moments."""
        return {"kl": self.kl.state_dict(), "scale": self.scale.state_dict()}

    def remember(self, state: dict[str, Any]) -> None:
        """Take both back."""
        if state:
            self.kl.load_state_dict(state["kl"])
            self.scale.load_state_dict(state["scale"])
