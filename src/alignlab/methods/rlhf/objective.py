"""The loss of a few rows of a minibatch, such that sums over micro-batches and ranks are the loss of the whole.

Legend: see `minibatch.py`.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from alignlab.losses.chunked_head import token_loss, token_statistics
from alignlab.losses.grpo import sequence_log_ratio
from alignlab.losses.ppo import (
    Aggregation,
    KlEstimator,
    PolicyTerms,
    policy_terms,
    sampler_ratio,
    token_kl,
    token_weights,
    value_terms,
)
from alignlab.methods.rlhf.minibatch import Minibatch, Totals
from alignlab.models.language.actor_critic import ActorCritic

Importance = Literal["token", "sequence_mean", "sequence_sum"]


@dataclass
class Statistics:
    """Sums over a minibatch, already weighted: after the last micro-batch they are means."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    largest_ratio_error: Tensor | None = None

    def add(self, **values: Tensor) -> None:
        """Adds weighted sums."""
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value.detach() if name in self.sums else value.detach()

    def ratio(self, ratio: Tensor) -> None:
        """Keeps the largest |ratio - 1|."""
        if len(ratio):
            worst = (ratio - 1).abs().max()
            self.largest_ratio_error = (
                worst if self.largest_ratio_error is None else torch.maximum(worst, self.largest_ratio_error)
            )


class Objective:
    """Clipped policy loss, clipped value loss, entropy bonus and KL penalty of some rows.

    Args:
        clip_low, clip_high, dual_clip: as in `policy_terms`.
        value_clip, value_coefficient: as in `value_terms`, and the weight of that loss; the critic's loss is a mean
            over tokens whatever the aggregation.
        entropy_coefficient: weight of the entropy that is added to the aim.
        kl_coefficient, kl_estimator, kl_max, kl_by_ratio: of a KL penalty within the loss (GRPO); PPO has it in the
            reward. kl_max clamps a token's penalty, and so its gradient to 0 beyond, as verl and OpenRLHF do at 10.
            kl_by_ratio multiplies it by the ratio, whose gradient then is that of the true KL (arXiv:2512.02556); the
            estimator's own gradient is not.
        aggregation: how tokens are weighted, see `token_weights`.
        importance: ratio of each token, or of the whole response.
        sampler_ratio_max: for a backend that samples from another model than the policy (weights in 8 bits): each
            token's policy loss is weighed by `sampler_ratio` with this maximum; 2 is usual. None: sampler and policy
            are the same, which is checked.

    Raises:
        ValueError: a clip or a maximum that isn't positive, or a dual clip that isn't above 1.
    """

    def __init__(
        self,
        *,
        clip_low: float = 0.2,
        clip_high: float = 0.2,
        dual_clip: float | None = None,
        value_clip: float | None = 0.2,
        value_coefficient: float = 0.1,
        entropy_coefficient: float = 0.0,
        kl_coefficient: float = 0.0,
        kl_estimator: KlEstimator = "k3",
        kl_max: float | None = None,
        kl_by_ratio: bool = False,
        aggregation: Aggregation = "token",
        importance: Importance = "token",
        sampler_ratio_max: float | None = None,
    ) -> None:
        limits = {"clip_low": clip_low, "clip_high": clip_high, "value_clip": value_clip}
        for key, value in {**limits, "kl_max": kl_max, "sampler_ratio_max": sampler_ratio_max}.items():
            if value is not None and value <= 0:
                raise ValueError(f"{key}={value} must be positive")
        if dual_clip is not None and dual_clip <= 1:
            raise ValueError(f"dual_clip={dual_clip} must be above 1")
        self.clip = {"clip_low": clip_low, "clip_high": clip_high, "dual_clip": dual_clip}
        self.value_clip, self.value_coefficient = value_clip, value_coefficient
        self.entropy_coefficient = entropy_coefficient
        self.kl_coefficient, self.kl_estimator, self.kl_by_ratio = kl_coefficient, kl_estimator, kl_by_ratio
        self.kl_max = kl_max
        self.aggregation, self.importance, self.sampler_ratio_max = aggregation, importance, sampler_ratio_max

    def __call__(self, net: ActorCritic, batch: Minibatch, statistics: Statistics) -> Tensor:
        """These rows' share of the step's loss, a scalar with gradient; sums are added to `statistics`."""
        hidden = net.hidden(batch.ids)
        loss = self._policy_loss(net, hidden, batch, statistics)
        if net.value_head is not None:
            values = batch.totals.values
            value = net.value(net.critic_hidden(batch.ids, hidden).flatten(0, 1)[batch.valued.state])
            terms = value_terms(value, batch.value, batch.returns, self.value_clip)
            value_loss = terms.loss.sum() / values
            loss = loss + self.value_coefficient * value_loss
            statistics.add(value_loss=value_loss, value_clip_fraction=terms.clipped.sum() / values)
        return loss

    def _policy_loss(self, net: ActorCritic, hidden: Tensor, batch: Minibatch, statistics: Statistics) -> Tensor:
        at, totals, sampling = batch.at, batch.totals, batch.sampling
        by_row = token_weights(
            batch.length,
            self.aggregation,
            tokens=totals.tokens,
            sequences=totals.sequences,
            longest=sampling.max_new_tokens,
        )
        weight = (by_row * batch.weight)[at.row]
        chosen, target = hidden.flatten(0, 1)[at.state], batch.ids.flatten()[at.state + 1]
        head = {"bias": net.head.bias, "temperature": sampling.temperature, "entropy": self.entropy_coefficient > 0}

        def loss(logprob: Tensor, entropy: Tensor | None, tokens: slice) -> Tensor:
            compared, old = logprob, batch.logprob[tokens]
            if self.importance != "token":
                mean = self.importance == "sequence_mean"
                compared = old + sequence_log_ratio(logprob - old, at.row, len(batch.length), mean)
            terms = policy_terms(compared, old, batch.advantage[tokens], **self.clip)
            if self.sampler_ratio_max is not None:
                ratio = sampler_ratio(old, batch.sampled[tokens], self.sampler_ratio_max)
                terms = terms._replace(loss=terms.loss * ratio)
                statistics.add(sampler_ratio=ratio.sum() / totals.tokens)
            _count(statistics, terms, weight[tokens], totals)
            per_token = terms.loss
            if self.kl_coefficient > 0:
                kl = token_kl(logprob, batch.reference[tokens], self.kl_estimator, most=self.kl_max)
                kl = kl * (logprob - old).clamp(max=20.0).exp() if self.kl_by_ratio else kl
                per_token = per_token + self.kl_coefficient * kl
            if entropy is not None:
                statistics.add(entropy=entropy.sum() / totals.tokens)
                per_token = per_token - self.entropy_coefficient * entropy
            return (per_token * weight[tokens]).sum()

        if self.importance == "token":
            return token_loss(chosen, net.head.weight, target, loss, **head)
        whole = token_statistics(chosen, net.head.weight, target, **head)
        return loss(whole.logprob, whole.entropy, slice(None))


def _count(statistics: Statistics, terms: PolicyTerms, weight: Tensor, totals: Totals) -> None:
    with torch.no_grad():
        statistics.ratio(terms.ratio)
        statistics.add(
            policy_loss=(terms.loss * weight).sum(),
            approx_kl=terms.approx_kl.sum() / totals.tokens,
            clip_fraction=terms.clipped.sum() / totals.tokens,
            ratio=terms.ratio.sum() / totals.tokens,
        )
