"""What PPO and its relatives without a critic share: prompts to responses, scores, experience, and the loss of each
optimizer step.

A loop without a trainer (docs/ppo.md):

    for number, batch in enumerate(prompts):
        responses, t = method.roll_out(batch, number)
        scores = method.scores(method.reward, responses)
        e, metrics = method.experience(t, scores.learned)
        for parts in method.minibatches(t, e, number):
            statistics = Statistics()
            for part in parts:
                method.objective(method.net, part, statistics).backward()
            optimizer.step()
            optimizer.zero_grad()

Legend: B responses of this process, T response tokens of the longest.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from alignlab.distributed.collectives import rank
from alignlab.inference.backend import Backend, ModelSource, Sampling
from alignlab.losses.ppo import ScorePosition
from alignlab.methods.language_models.export import build_net, export_model, quantised
from alignlab.methods.method import Method
from alignlab.methods.rewards.scoring import Scores, Scoring
from alignlab.methods.rlhf.answers import Answer, texts, to_be_scored
from alignlab.methods.rlhf.minibatch import Experience, Minibatch, Totals
from alignlab.methods.rlhf.objective import Objective
from alignlab.methods.rlhf.parts import micro_batches, parts_of, sent
from alignlab.methods.rlhf.precision import float32_tensors, own_precision
from alignlab.methods.rlhf.reward import Function, Reward, as_reward
from alignlab.methods.rlhf.rollout import Responses, Trajectory, evaluate, generate, prompts_of, request_seeds
from alignlab.methods.rlhf.sampler import default_backend, verify_head
from alignlab.methods.rlhf.update import Update
from alignlab.methods.rlhf.whole_policy import WholePolicy
from alignlab.models.language.actor_critic import ActorCritic, Critic, without_dropout
from alignlab.models.language.context import context_length
from alignlab.models.language.loading import load_language_model
from alignlab.models.language.quantized import packed
from alignlab.types.language import LanguageVocabulary, PromptBatch

VALIDATION_SEED = 0x5EED


class OnPolicyMethod(Method):
    """Rolls out, scores and learns from it; sub-classes turn scores into advantages (`experience`).

    Args:
        net: builds the supervised model to start from, `net(vocabulary=...)`; it is the reference.
        reward: run directory of a reward model, dotted path of a function of (prompts, responses, **columns), or a node
            with `_target_`; or several such by names.
        vocabulary: of the data.
        peft: adds an adapter, `peft(net)`; None trains everything.
        critic: see `ActorCritic`.
        objective: policy and value loss.
        update: epochs, minibatches, clipping, the critic's rate.
        scoring: weights of several rewards, a time limit, and what becomes of responses without a score.
        judge: as `reward`, for validation only: training never sees it.
        response_length: of the rollout, tokens.
        temperature: of the rollout; log-probabilities are taken at this temperature everywhere.
        group_size: responses to each prompt.
        backend: generates, or makes the backend that does; None: our own decode loop on the live policy, or
            transformers' where that knows neither architecture nor quantised weights.
        stop_ids: tokens that end a response besides the tokenizer's end.
        seed: of rollouts and minibatches, as of the run.
        score_position: token that the score is added to: the last one, or ("after_last") the place after it, as TRL
            has it.
        export_merged: whether the export of an adapter holds the whole model besides.

    Raises:
        ValueError: a setting is out of its range, or the net is rounded in a way that depends on the batch.
    """

    rolls_out = True
    shown = ("objective/score", "objective/kl", "val/score")

    def __init__(
        self,
        net: Callable[..., nn.Module],
        reward: str | Function | Reward | Mapping[str, Any],
        *,
        vocabulary: LanguageVocabulary,
        peft: Callable[..., nn.Module] | None = None,
        critic: Critic = "shared",
        objective: Objective | None = None,
        update: Update | None = None,
        scoring: Scoring | None = None,
        judge: str | Function | Reward | Mapping[str, Any] | None = None,
        response_length: int = 53,
        temperature: float = 1.0,
        group_size: int = 1,
        backend: Callable[[], Backend] | Backend | None = None,
        stop_ids: tuple[int, ...] = (),
        seed: int = 0,
        score_position: ScorePosition = "last",
        export_merged: bool = True,
    ) -> None:
        super().__init__()
        for key, value in (("response_length", response_length), ("group_size", group_size)):
            if value < 1:
                raise ValueError(f"{key}={value} must be at least 1")
        if temperature <= 0:
            raise ValueError(f"temperature={temperature} must be positive: a greedy policy learns nothing")
        self.objective, self.update = objective or Objective(), update or Update()
        self.reward, self.scoring = as_reward(reward), scoring or Scoring()
        self.judge = None if judge is None else as_reward(judge, "judge")
        self.group_size, self.seed, self.score_position = group_size, seed, score_position
        self.given_backend, self.export_merged = backend, export_merged
        self.sampling = Sampling(response_length, temperature, stop_ids=tuple(stop_ids))
        built = build_net(net, peft, vocabulary)
        if packed(built) == "llm_int8":
            raise ValueError(
                "quantization=llm_int8 rounds activations together with the rows beside them, so that a token's "
                "log-probability depends on "
                "its batch: on-policy training needs int8 or nf4"
            )
        self.net = ActorCritic(built, critic)
        self.tokenizer: Any = None
        self.backend: Backend | None = None
        self.whole: WholePolicy | None = None
        self._ready_on: torch.device | None = None

    # What a sub-class says

    def experience(self, t: Trajectory, score: Tensor) -> tuple[Experience, dict[str, Tensor]]:
        """Advantages of a rollout from its scores (B,), and metrics."""
        raise NotImplementedError

    def learn_from(self, metrics: dict[str, float], responses: int) -> None:
        """What the method itself adapts after an update of so many responses of all ranks, from the
        update's metrics.
        """

    # Verbs

    def cut_up(self) -> None:
        """To be told before a strategy cuts the net's parameters up: from then on rollouts, rewards and answers work on
        copies that hold whole weights within `speaking`.
        """
        self.whole = WholePolicy(self.net, self._load_backend, self._close_backend)

    @property
    def speaker(self) -> ActorCritic:
        """The net that rollouts, rewards and answers read."""
        return self.net if self.whole is None else self.whole.net

    @contextmanager
    def speaking(self, answers: bool = False) -> Iterator[None]:
        """Within, this process can respond and score at its own pace; with `answers` it can answer too. All ranks enter
        and leave together. Where every rank holds whole weights it does nothing.
        """
        with ExitStack() as stack:
            if self.whole is not None:
                stack.enter_context(self.whole.policy())
                stack.enter_context(self.whole.reference()) if answers else None
            yield

    def prepare(self, tokenizer: Any, renderer: Any = None) -> None:
        """Makes the backend, binds rewards and checks the output layer, once a device; called before the first
        rollout, within `speaking`.

        Args:
            renderer: of the prompts, where it is known: a reward model then reads rollouts as its training read texts.
        """
        device = self.net.device
        if self._ready_on == device:
            return
        with own_precision(device):
            if self.whole is None:
                self.net.move_reference(device)
            self.tokenizer, speaker = tokenizer, self.speaker
            ids = torch.arange(1, 9, device=device)[None] % speaker.head.out_features
            verify_head(speaker, ids, 0.3 if self.weight_type == "bfloat16" else 1e-3)
            for reward in (self.reward, self.judge):
                if reward is not None:
                    reward.bind(speaker, tokenizer)
                    if renderer is not None and hasattr(reward, "read_as_trained"):
                        reward.read_as_trained(renderer, self.sampling.stop_ids)
            given = self.given_backend
            self.backend = given() if callable(given) else given or default_backend(speaker.model)
            self._load_backend()
            without_dropout(self.net)  # a backend may have changed the mode
        self._ready_on = device

    def _load_backend(self) -> None:
        if self.backend is not None:
            model = self.speaker.model
            self.backend.load(ModelSource("policy", dtype=self.weight_type, model=model, tokenizer=self.tokenizer))

    def _close_backend(self) -> None:
        if self.backend is not None:
            self.backend.close()

    @property
    def weight_type(self) -> Literal["float32", "bfloat16"]:
        """Dtype of the policy's weights."""
        return "bfloat16" if self.net.head.weight.dtype == torch.bfloat16 else "float32"

    def roll_out(
        self, batch: PromptBatch, number: int, *, seed: int | None = None, repeats: int | None = None
    ) -> tuple[Responses, Trajectory]:
        """Responses to a batch of prompts of update `number`, and all that the nets say about them."""
        responses = self.respond(batch, number, seed=seed, repeats=repeats)
        return responses, self.assess(responses)

    def respond(
        self, batch: PromptBatch, number: int, *, seed: int | None = None, repeats: int | None = None
    ) -> Responses:
        """Responses to a batch of prompts of update `number`."""
        repeats, seed = repeats or self.group_size, self.seed if seed is None else seed
        prompts = prompts_of(batch, repeats)
        seeds = request_seeds(seed, number, rank() * len(prompts), len(prompts))
        limit = context_length(self.net.model.config)
        with own_precision(self.net.device):
            responses = generate(self.backend, prompts, seeds, self.sampling, limit)
        contents, rows = (
            column and [c for c in column for _ in range(repeats)] for column in (batch.content, batch.rows)
        )
        return responses._replace(contents=contents, rows=rows)

    def assess(self, responses: Responses) -> Trajectory:
        """All that the nets say about responses."""
        return self._assessed(self.net, responses)

    def _assessed(self, net: ActorCritic, responses: Responses) -> Trajectory:
        return evaluate(
            net,
            responses,
            temperature=self.sampling.temperature,
            micro_batch=self.update.micro_batch_size,
            position=self.score_position,
        )

    def scores(self, reward: Reward, responses: Responses) -> Scores:
        """Scores of responses, `group_size` to each prompt, on the policy's device."""
        scored = to_be_scored(self.tokenizer, responses)
        with torch.no_grad(), own_precision(self.net.device):
            scores = self.scoring(reward, scored, self.group_size)
            if scores.total.device == self.net.device:
                return scores
            tensors = (scores.parts, scores.total, scores.learned)
            return Scores(scores.names, *sent(tensors, self.net.device), scores.may_lack)

    def score(self, reward: Reward, responses: Responses) -> Tensor:
        """Scores (B,) of responses of any number to a prompt, NaN for what is left out, on the policy's device."""
        scored = to_be_scored(self.tokenizer, responses)
        with torch.no_grad(), own_precision(self.net.device):
            score = (self.scoring if reward is self.reward else Scoring())(reward, scored).total
            return score if score.device == self.net.device else sent([score], self.net.device)[0]

    def minibatches(self, t: Trajectory, e: Experience, number: int) -> Iterator[list[Minibatch]]:
        """What each step of update `number` learns from, in micro-batches, whose split changes nothing.

        What the device has to know of all of them goes there in one copy.
        """
        order = self.update.order(len(t.ids), self.seed, number)
        groups = [micro_batches(rows, t.lengths.total, self.update.micro_batch_size) for rows in order]
        flat = [rows for group in groups for rows in group]
        parts = iter(parts_of(flat, t.lengths, self.score_position, t.ids.device))
        weight = float(number >= self.update.critic_warmup)
        for group in groups:
            own = [next(parts) for _ in group]
            totals = Totals.of(t, e, own)
            yield [Minibatch.of(t, e, part, totals, self.sampling, weight) for part in own]

    def answers(self, batch: PromptBatch, number: int = 0, repeats: int = 1) -> list[Answer]:
        """Responses to prompts with scores; the same for the same weights, whatever was drawn before."""
        with float32_tensors():
            responses = self.respond(batch, number, seed=VALIDATION_SEED, repeats=repeats)
            t = self._assessed(self.speaker, responses)
            score = self.score(self.reward, responses).tolist()
            judged = [None] * len(score) if self.judge is None else self.score(self.judge, responses).tolist()
        kl = torch.where(t.mask, t.logprob - t.reference, 0.0).sum(1).tolist()
        columns = (*texts(self.tokenizer, responses), score, judged, kl, responses.responses, responses.ended)
        return [Answer(*row) for row in zip(*columns, strict=True)]

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """Writes the policy in Hugging Face's format: the model, or the adapter and beside it, in `merged/`, base and
        adapter in one; the tokenizer is the callback's business.
        """
        model = self.net.model
        export_model(model, folder)
        if self.net.adapters and (folder / "adapter_config.json").exists() and self.export_merged:
            if quantised(model):  # into the base in full precision, as it lies on disk
                whole = load_language_model(str(folder), self.weight_type).merge_and_unload()
                whole.save_pretrained(folder / "merged")
            else:
                export_model(model, folder / "merged", whole=True)
