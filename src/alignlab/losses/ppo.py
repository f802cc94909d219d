"""Proximal policy optimisation on tokens: rewards, advantages, clipped losses.

Legend: B responses, T tokens of the longest one, N any shape of tokens. Masks are True on response tokens, the one
that ended the response included.
Nothing here averages: a loss is a number per token, and `token_weights` says what each counts in the whole step, so
that neither micro-batches nor ranks change a gradient.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from alignlab.distributed.collectives import reduce_sum

KlEstimator = Literal["k1", "k2", "k3"]
MissingEnd = Literal["subtract", "replace"]
ScorePosition = Literal["last", "after_last"]
Aggregation = Literal["token", "sequence", "constant"]


def length_mask(length: Tensor, size: int) -> Tensor:
    """True on the first `length` of `size` places: (B,) -> (B, size)."""
    return torch.arange(size, device=length.device) < length[:, None]


def sampler_ratio(logprob: Tensor, sampled: Tensor, most: float) -> Tensor:
    """min(pi / mu, most) of each token: how much likelier the policy holds it than the model mu that drew it.

    Truncated importance sampling: biased by what is cut off, and of bounded variance (Ionides 2008; of rollouts Yao et
    al. 2025, "Your efficient RL framework secretly brings you off-policy RL training"). logprob, sampled (N,) nats.
    """
    # huggingface/trl v1.12.0 trl/trainer/grpo_trainer.py:2681-2703, mode token_truncate.
    return (logprob - sampled).exp().clamp(max=most)


def token_kl(
    logprob: Tensor,
    reference: Tensor,
    estimator: KlEstimator = "k1",
    limit: float | None = None,
    most: float | None = None,
) -> Tensor:
    """Estimate KL(policy || reference) at each sampled token from d = logprob - reference.

    k1 = d, k2 = d^2 / 2, k3 = exp(-d) - 1 + d (http://joschu.net/blog/kl-approx.html). k1 and k3 are unbiased where
    the tokens are samples of the policy; k1 may be negative. limit: d is clamped to +-limit first. k3 is clamped to
    d >= -20 besides, where it is 4.9e8: beyond it overflows float32, and one token is the whole loss. most: clamps the
    estimate to +-most, beyond which nothing pulls the policy back. N -> N, nats.
    """
    d = logprob - reference
    if limit is not None:
        d = d.clamp(-limit, limit)
    # All three in OpenRLHF/OpenRLHF 3c3be623 openrlhf/models/utils.py:64-95, which clamps d to +-10; k1 and k3 in
    # huggingface/trl v1.12.0 trl/experimental/ppo/ppo_trainer.py:773-774.
    if estimator == "k3":
        # volcengine/verl 1dda039b9 verl/trainer/ppo/core_algos.py clamps the same difference to +-20, and then the
        # estimate to +-10, as OpenRLHF 0.11.2 does with all three.
        d = d.clamp_min(-20.0)
        d = torch.expm1(-d) + d  # expm1: near d = 0 exp(-d) - 1 would be lost to rounding
    elif estimator == "k2":
        d = d.square() / 2
    return d if most is None else d.clamp(-most, most)


def penalise_missing_end(score: Tensor, ended: Tensor, penalty: float | None, how: MissingEnd = "subtract") -> Tensor:
    """Lower the score of responses that were cut before their end: a reward model has never seen such texts.

    subtract: score - penalty; replace: -penalty whatever the score (arXiv:1909.08593, sec. 3.1.1, has it so, with 1).
    score, ended (B,).
    """
    # subtract: huggingface/trl v1.12.0 trl/experimental/ppo/ppo_trainer.py:757-759; replace, by -1:
    # vwxyzjn/lm-human-preference-details ccc1953 train_policy_accelerate.py:621-625.
    if penalty is None:
        return score
    return torch.where(ended, score, score - penalty if how == "subtract" else torch.full_like(score, -penalty))


def value_mask(mask: Tensor, position: ScorePosition = "last") -> Tensor:
    """Places that have a value and a reward: the response, and with `after_last` one place more where there is room
    (B, T).
    """
    if position == "last":
        return mask
    return torch.cat([mask[:, :1], mask[:, 1:] | mask[:, :-1]], dim=1)


def token_rewards(
    score: Tensor, kl: Tensor, mask: Tensor, beta: float | Tensor, position: ScorePosition = "last"
) -> Tensor:
    """Return r_t = -beta kl_t, plus the score on one token (arXiv:1909.08593, eq. 2).

    last: on the response's last token, which is the end token where there is one. after_last: one place later, on the
    first padding, and on the last token where the response fills T; TRL 1.12 and arXiv:2403.17031 have it so. score
    (B,), kl, mask (B, T) -> (B, T), 0 elsewhere.
    """
    # last: OpenRLHF/OpenRLHF 3c3be623 openrlhf/models/utils.py:121-124; after_last: huggingface/trl v1.12.0
    # trl/experimental/ppo/ppo_trainer.py:775-779.
    rewards = torch.where(mask, -beta * kl, 0.0)
    place = mask.sum(1) - (1 if position == "last" else 0)
    return rewards.scatter_add(1, place.clamp(0, mask.shape[1] - 1)[:, None], score.to(rewards.dtype)[:, None])


class Advantages(NamedTuple):
    """What the policy and the critic learn from, not whitened."""

    advantage: Tensor  # (B, T), 0 where the mask is False
    returns: Tensor  # (B, T), advantage + value


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, lam: float = 0.95) -> Advantages:
    """Generalised advantage estimation over response tokens (arXiv:1506.02438, eq. 16).

    A_t = delta_t + gamma lambda A_{t+1}, delta_t = r_t + gamma V_{t+1} - V_t, V = 0 after the end; V_t is the value of
    what comes before token t. rewards, values, mask (B, T).
    """
    rewards, values = torch.where(mask, rewards, 0.0), torch.where(mask, values, 0.0)
    delta = rewards + gamma * torch.cat([values[:, 1:], values.new_zeros(len(values), 1)], dim=1) - values
    # The same recursion: huggingface/trl v1.12.0 trl/experimental/ppo/ppo_trainer.py:786-796.
    steps, running = [], torch.zeros_like(delta[:, 0])
    for t in range(delta.shape[1] - 1, -1, -1):
        running = delta[:, t] + gamma * lam * running
        steps.append(running)
    advantage = torch.stack(steps[::-1], dim=1)
    return Advantages(torch.where(mask, advantage, 0.0), torch.where(mask, advantage + values, 0.0))


def masked_moments(x: Tensor, mask: Tensor, unbiased: bool = False) -> tuple[Tensor, Tensor]:
    """Mean and variance over the masked places of all ranks, in float64 where x is shorter; `unbiased` divides by n -
    1.
    """
    # In float64 a sum of equal float32 numbers is exact, and so is their mean: no rest of rounding is left to be
    # divided by a tiny deviation.
    x = x.double()
    total, count = reduce_sum(torch.stack([torch.where(mask, x, 0.0).sum(), mask.sum().to(x.dtype)]))
    mean = total / count.clamp_min(1.0)
    squares = reduce_sum(torch.where(mask, x - mean, 0.0).square().sum())
    return mean, squares / (count - int(unbiased)).clamp_min(1.0)


def whiten(x: Tensor, mask: Tensor, *, keep_mean: bool = False, unbiased: bool = False) -> Tensor:
    """Return (x - mean) / sqrt(variance + 1e-8) over the masked places of all ranks, plus the mean with `keep_mean`; 0
    elsewhere.

    TRL's `masked_whiten` is unbiased and sees one rank only. Equal numbers give exactly 0. x, mask of equal shape.
    """
    # huggingface/trl v1.12.0 trl/experimental/ppo/ppo_trainer.py:264-270; vwxyzjn/summarize_from_feedback_details
    # ee77a9a ppo.py:237 takes the biased variance, OpenRLHF/OpenRLHF 3c3be623 experience_maker.py:315-328 all ranks.
    mean, variance = masked_moments(x, mask, unbiased)
    whitened = (x.double() - mean) * torch.rsqrt(variance + 1e-8)
    return torch.where(mask, whitened + mean if keep_mean else whitened, 0.0).to(x.dtype)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """Return 1 - Var(returns - values) / Var(returns) over the masked places of all ranks; 1 is a perfect critic, 0 a
    constant one.
    """
    _, residual = masked_moments(returns - values, mask)
    _, whole = masked_moments(returns, mask)
    return 1 - residual / whole.clamp_min(1e-12)


def token_weights(length: Tensor, how: Aggregation, *, tokens: Tensor, sequences: Tensor, longest: int) -> Tensor:
    """Weight of each token of a response in a loss that is summed over everything: (B,) -> (B,).

    token: 1 / all tokens; sequence: 1 / (own tokens x all sequences); constant: 1 / (all sequences x longest), which
    favours no length (arXiv:2503.20783, sec. 3.2). `tokens` and `sequences` count the whole step, over micro-batches
    and ranks.
    """
    # Which counts whom: volcengine/verl 1dda039b9 verl/trainer/ppo/core_algos.py:1140-1207 (token-mean, seq-mean).
    if how == "token":
        return torch.ones_like(length, dtype=torch.float32) / tokens
    if how == "sequence":
        return 1.0 / (length.clamp_min(1) * sequences)
    return torch.ones_like(length, dtype=torch.float32) / (sequences * longest)


class PolicyTerms(NamedTuple):
    """Per token, with gradient only in `loss`."""

    loss: Tensor  # N
    ratio: Tensor  # N, new probability over old
    approx_kl: Tensor  # N, k3 of old against new, nats
    clipped: Tensor  # N bool, the clipped term is the one that counts


def policy_terms(
    logprob: Tensor,
    old: Tensor,
    advantage: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    log_ratio_limit: float = 20.0,
) -> PolicyTerms:
    """Clipped surrogate max(-A w, -A clip(w, 1 - low, 1 + high)), w = exp(logprob - old) (arXiv:1707.06347, eq. 7).

    Unequal clips: arXiv:2503.14476, eq. 10. dual_clip c > 1 bounds the loss of tokens with A < 0 by -c A
    (arXiv:1912.09729, eq. 5). The log-ratio is clamped to +-log_ratio_limit, far outside the clip, against overflow. N
    -> N.
    """
    # Without dual clip and limit: huggingface/trl v1.12.0 trl/experimental/ppo/ppo_trainer.py:841-846. volcengine/verl
    # 1dda039b9 and OpenRLHF/OpenRLHF 3c3be623 limit at 20 too; verl has dual clip on by default.
    log_ratio = (logprob - old).clamp(-log_ratio_limit, log_ratio_limit)
    ratio = log_ratio.exp()
    plain = -advantage * ratio
    clipped = -advantage * ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = torch.maximum(plain, clipped)
    if dual_clip is not None:
        loss = torch.where(advantage < 0, torch.minimum(loss, -dual_clip * advantage), loss)
    with torch.no_grad():
        return PolicyTerms(loss, ratio.detach(), ratio - 1 - log_ratio, clipped > plain)


class ValueTerms(NamedTuple):
    """Per token, with gradient only in `loss`."""

    loss: Tensor  # N
    clipped: Tensor  # N bool


def value_terms(value: Tensor, old: Tensor, returns: Tensor, clip: float | None = 0.2) -> ValueTerms:
    """Critic's loss 1/2 max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2); None: no clip. N -> N."""
    # huggingface/trl v1.12.0 trl/experimental/ppo/ppo_trainer.py:829-837.
    plain = (value - returns).square()
    if clip is None:
        return ValueTerms(plain / 2, torch.zeros_like(plain, dtype=torch.bool))
    limited = (torch.clamp(value, old - clip, old + clip) - returns).square()
    return ValueTerms(torch.maximum(plain, limited) / 2, limited.detach() > plain.detach())
