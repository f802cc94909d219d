"""On-policy distillation, GKD (arXiv:2306.13649): the student answers, the teacher says at each token of the answer
what it would have said, and the student moves towards that.

Legend: B responses of this process, N response tokens of a minibatch.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from alignlab.distributed.collectives import reduce_mean
from alignlab.losses.distillation import distillation_loss
from alignlab.losses.language_modelling import token_log_probs
from alignlab.losses.ppo import Aggregation, token_weights
from alignlab.methods.rewards.scoring import Scores
from alignlab.methods.rlhf.minibatch import Experience, Minibatch
from alignlab.methods.rlhf.objective import Statistics
from alignlab.methods.rlhf.on_policy import OnPolicyMethod
from alignlab.methods.rlhf.reward import Function, Reward
from alignlab.methods.rlhf.rollout import Responses, Trajectory
from alignlab.methods.rlhf.update import Update
from alignlab.models.language.actor_critic import ActorCritic, exact_rotations, without_dropout
from alignlab.models.language.paths import load_tokenizer, origin_of
from alignlab.models.language.trunk import head_of, hidden_states
from alignlab.types.language import LanguageVocabulary


class Distillation:
    """Divergence of the student from its teacher over the tokens of responses.

    Args:
        beta: of the generalized Jensen-Shannon divergence: 0: forward KL(teacher | student), 1: reverse.
        aggregation: how tokens are weighted, see `token_weights`.

    Raises:
        ValueError: a beta outside of 0..1.
    """

    sampler_ratio_max = None  # nothing here depends on the probability with which a response was drawn

    def __init__(self, *, beta: float = 0.5, aggregation: Aggregation = "token") -> None:
        if not 0 <= beta <= 1:
            raise ValueError(f"beta={beta} must lie in 0..1")
        self.beta, self.aggregation = beta, aggregation
        self.teacher: nn.Module | None = None

    def __call__(self, net: ActorCritic, batch: Minibatch, statistics: Statistics) -> Tensor:
        """These rows' share of the step's loss, a scalar with gradient; the divergence, nats a token, is added to
        `statistics`.
        """
        at, totals = batch.at, batch.totals
        lengths = {"tokens": totals.tokens, "sequences": totals.sequences, "longest": batch.sampling.max_new_tokens}
        weight = (token_weights(batch.length, self.aggregation, **lengths) * batch.weight)[at.row]
        with torch.no_grad():
            taught = hidden_states(self.teacher, batch.ids).flatten(0, 1)[at.state]
        loss, divergence = distillation_loss(
            net.hidden(batch.ids).flatten(0, 1)[at.state],
            net.head.weight,
            taught,
            head_of(self.teacher),
            weight,
            bias=net.head.bias,
            beta=self.beta,
            temperature=batch.sampling.temperature,
        )
        statistics.add(divergence=divergence.sum() / totals.tokens)
        return loss


class Unscored(Scores):
    """Of responses that nobody scores: there is nothing to log."""

    def metrics(self) -> dict[str, Tensor]:
        """None."""
        return {}


class OfTeacher:
    """Stands for a reward where none is given; the method asks the teacher itself."""

    def bind(self, net: ActorCritic, tokenizer: Any) -> None:
        """Nothing to bind."""


class GkdMethod(OnPolicyMethod):
    """Trains a student on its own responses towards a teacher's distribution; see `OnPolicyMethod` for what is not
    listed here.

    Args:
        net: the student to start from.
        teacher: builds the model to learn from, `teacher(vocabulary=...)`. It has the student's vocabulary, is frozen
            and in no checkpoint, and each process holds all of it.
        reward: to measure with: nothing is learnt from it. None: the score of a held-out response is the teacher's mean
            log-probability of its tokens, in nats.
        objective: the divergence.
        update: by default one epoch: responses are the student's own.

    Raises:
        ValueError: `update.target_kl` is set: no ratio of probabilities is there to measure it by.
    """

    shown = ("ppo/divergence", "objective/kl", "val/score")

    def __init__(
        self,
        net: Callable[..., nn.Module],
        teacher: Callable[..., nn.Module],
        *,
        vocabulary: LanguageVocabulary,
        reward: str | Function | Reward | Mapping[str, Any] | None = None,
        objective: Distillation | None = None,
        update: Update | None = None,
        **settings: Any,
    ) -> None:
        if update is not None and update.target_kl is not None:
            raise ValueError(
                "update.target_kl: distillation looks at the whole distribution and knows no ratio to stop by"
            )
        super().__init__(
            net,
            OfTeacher() if reward is None else reward,
            vocabulary=vocabulary,
            critic="none",
            objective=objective or Distillation(),
            update=update or Update(epochs=1),
            **settings,
        )
        taught = teacher(vocabulary=vocabulary).requires_grad_(False)
        without_dropout(taught.eval())
        self.objective.teacher = taught  # no sub-module: neither trained, nor saved, nor cut up

    @property
    def teacher(self) -> nn.Module:
        """Whom the student learns from."""
        return self.objective.teacher

    def prepare(self, tokenizer: Any, renderer: Any = None) -> None:
        """See `OnPolicyMethod`; the teacher comes along.

        Raises:
            ValueError: its vocabulary is another one than the student's.
        """
        new = self._ready_on != self.net.device
        super().prepare(tokenizer, renderer)
        if not new:
            return
        origin = origin_of(self.teacher)
        if origin is not None and load_tokenizer(origin).get_vocab() != tokenizer.get_vocab():
            raise ValueError(f"teacher: {origin} has another vocabulary than the student, which learns token by token")
        with exact_rotations(self.teacher):
            self.teacher.to(self.net.device)

    def experience(self, t: Trajectory, score: Tensor) -> tuple[Experience, dict[str, Tensor]]:
        """Responses as they are: what is learnt from them doesn't depend on scores."""
        kl = torch.where(t.mask, t.logprob - t.reference, 0.0).sum(1)
        entropy = torch.where(t.mask, t.entropy, 0.0).sum(1)
        means = reduce_mean(torch.stack([kl.mean(), entropy.mean()]))
        names = ("objective/kl", "objective/entropy")
        everyone = Experience(torch.zeros_like(t.logprob), None, torch.ones_like(kl))
        return everyone, dict(zip(names, means, strict=True))

    def scores(self, reward: Reward, responses: Responses) -> Scores:
        """Of a rollout; none where there is no reward: the loss asks the teacher."""
        if isinstance(reward, OfTeacher):
            zeros = torch.zeros(len(responses.ended), device=self.net.device)
            return Unscored((), zeros[:, None][:, :0], zeros, zeros)
        return super().scores(reward, responses)

    def score(self, reward: Reward, responses: Responses) -> Tensor:
        """See `OnPolicyMethod`; without a reward the teacher's mean log-probability of each response's tokens (B,)."""
        return self.likelihood(responses) if isinstance(reward, OfTeacher) else super().score(reward, responses)

    @torch.no_grad()
    def likelihood(self, responses: Responses) -> Tensor:
        """The teacher's mean log-probability of the tokens of each response, (B,), nats."""
        t = Trajectory.of(responses, self.net.device)
        head = head_of(self.teacher)
        for part, ids, target in t.passes(self.update.micro_batch_size, self.score_position):
            states = hidden_states(self.teacher, ids).flatten(0, 1)[part.at.state]
            said = token_log_probs(states, head, target, temperature=self.sampling.temperature)
            t.logprob.view(-1)[part.at.token] = said
        return t.logprob.sum(1) / t.length
