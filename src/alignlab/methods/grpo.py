"""Policy optimisation without a critic: GRPO, RLOO and REINFORCE++, with Dr. GRPO's, DAPO's and GSPO's choices as
settings.

Legend: B responses of this process, G of each prompt, T response tokens of the longest.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from alignlab.distributed.collectives import reduce_mean
from alignlab.losses.grpo import (
    Scale,
    equal_groups,
    group_advantages,
    leave_one_out,
    overlong_penalty,
    reinforce_plus_plus,
)
from alignlab.losses.ppo import KlEstimator, MissingEnd, penalise_missing_end, token_kl, token_rewards
from alignlab.methods.rewards.scoring import filled_up
from alignlab.methods.rlhf.minibatch import Experience
from alignlab.methods.rlhf.on_policy import OnPolicyMethod
from alignlab.methods.rlhf.reward import Function, Reward
from alignlab.methods.rlhf.rollout import Trajectory
from alignlab.methods.rlhf.update import Update

Kind = Literal["grpo", "rloo", "reinforce++"]


class GrpoMethod(OnPolicyMethod):
    """Compares several responses to each prompt instead of asking a critic; see `OnPolicyMethod` for what is not
    listed here.

    Args:
        net: as in `OnPolicyMethod`.
        reward: as in `OnPolicyMethod`.
        kind: "grpo" (arXiv:2402.03300), "rloo" (arXiv:2402.14740), "reinforce++" (arXiv:2501.03262).
        update: by default one epoch.
        kl_in_reward, kl_estimator: coefficient of a KL penalty in the reward: summed over the response for grpo and
            rloo, on its token for reinforce++. GRPO's penalty within the loss is the objective's `kl_coefficient`.
        group_size: responses to each prompt.
        scale, scale_epsilon: of grpo's advantages, see `group_advantages`.
        group_baseline: whether reinforce++ takes the mean of the group from the score first.
        redraws: turns at most, in each of which prompts whose responses all have the same score give way to others of
            the data (DAPO's dynamic sampling).
        skip_equal: leave out prompts whose responses all have the same score (DAPO).
        overlong_margin: tokens before `response_length` from which on a penalty rises to 1 (DAPO); 0: none.
        missing_end_penalty, missing_end: for responses that were cut: subtracted from the score, or instead of it.
        gamma, unbiased_whitening: discount of reinforce++, and whether its variance is divided by n - 1.
        response_length: as in `OnPolicyMethod`.
    """

    def __init__(
        self,
        net: Callable[..., nn.Module],
        reward: str | Function | Reward | Mapping[str, Any],
        *,
        kind: Kind = "grpo",
        update: Update | None = None,
        kl_in_reward: float = 0.0,
        kl_estimator: KlEstimator = "k1",
        group_size: int = 8,
        scale: Scale = "group",
        scale_epsilon: float = 1e-4,
        group_baseline: bool = False,
        skip_equal: bool = False,
        redraws: int = 0,
        overlong_margin: int = 0,
        missing_end_penalty: float | None = None,
        missing_end: MissingEnd = "subtract",
        gamma: float = 1.0,
        unbiased_whitening: bool = False,
        response_length: int = 53,
        **settings: Any,
    ) -> None:
        if kind not in ("grpo", "rloo", "reinforce++"):
            raise ValueError(f"kind={kind} is none of grpo, rloo, reinforce++")
        if group_size < 2 and (kind != "reinforce++" or group_baseline):
            raise ValueError(f"group_size={group_size}: kind={kind} compares at least 2 responses")
        if overlong_margin < 0 or overlong_margin > response_length:
            raise ValueError(f"overlong_margin={overlong_margin} must lie in 0..{response_length}")
        if scale_epsilon <= 0:
            raise ValueError(f"scale_epsilon={scale_epsilon} must be positive")
        if redraws < 0:
            raise ValueError(f"redraws={redraws} must be at least 0")
        super().__init__(
            net,
            reward,
            critic="none",
            score_position="last",
            update=update or Update(epochs=1),
            group_size=group_size,
            response_length=response_length,
            **settings,
        )
        self.kind, self.scale, self.kl_in_reward, self.kl_estimator = kind, scale, kl_in_reward, kl_estimator
        self.group_baseline, self.skip_equal, self.overlong_margin = group_baseline, skip_equal, overlong_margin
        self.redraws, self.scale_epsilon, self.unbiased_whitening = redraws, scale_epsilon, unbiased_whitening
        self.missing_end_penalty, self.missing_end, self.gamma = missing_end_penalty, missing_end, gamma

    def experience(self, t: Trajectory, score: Tensor) -> tuple[Experience, dict[str, Tensor]]:
        """Advantages of a rollout, the same for all tokens of a response but with reinforce++."""
        kept = score.isfinite()
        score = penalise_missing_end(score, t.ended, self.missing_end_penalty, self.missing_end)
        if self.overlong_margin:
            score = score + overlong_penalty(t.length, self.sampling.max_new_tokens, self.overlong_margin)
        score, _ = filled_up(torch.where(kept, score, torch.nan), self.group_size)
        kl = torch.where(t.mask, token_kl(t.logprob, t.reference, self.kl_estimator), 0.0)
        equal = equal_groups(score, self.group_size)
        weight = (kept & ~equal if self.skip_equal else kept).float()
        if self.kind == "reinforce++":
            advantage = self._reinforce_plus_plus(t, score, kl, kept)
        else:
            score_with_kl = score - self.kl_in_reward * kl.sum(1)
            if self.kind == "rloo":
                per_response = leave_one_out(score_with_kl, self.group_size, kept)
            else:
                settings = (self.group_size, self.scale, kept, self.scale_epsilon)
                per_response = group_advantages(score_with_kl, *settings)
            advantage = torch.where(t.mask, per_response[:, None], 0.0)
        k1 = torch.where(t.mask, t.logprob - t.reference, 0.0).sum(1)
        sums = torch.stack(
            [k1.mean(), torch.where(t.mask, t.entropy, 0.0).sum(1).mean(), score.mean(), equal.float().mean()]
        )
        names = ("objective/kl", "objective/entropy", "objective/rlhf_reward", "objective/equal_groups")
        return Experience(advantage, None, weight), dict(zip(names, reduce_mean(sums), strict=True))

    def _reinforce_plus_plus(self, t: Trajectory, score: Tensor, kl: Tensor, kept: Tensor) -> Tensor:
        if self.group_baseline:
            score = group_advantages(score, self.group_size, "none", kept)
        mask = t.mask & kept[:, None]
        rewards = token_rewards(score, kl, t.mask, self.kl_in_reward)
        return reinforce_plus_plus(rewards, mask, self.gamma, self.unbiased_whitening)
