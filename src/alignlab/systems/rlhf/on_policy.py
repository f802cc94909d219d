"""What PPO and its relatives without a critic share: one training step = prompts, responses, scores, several epochs of optimizer steps.

Legend: B responses of this process, T response tokens of the longest, R ranks.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, ModelParallelStrategy
from torch import Tensor, nn

from alignlab.distributed.collectives import rank, reduce_mean, world_size
from alignlab.evaluation.diversity import distinct
from alignlab.inference.backend import Backend, ModelSource, Sampling
from alignlab.inference.backends.compiled import CompiledBackend
from alignlab.inference.backends.transformers import TransformersBackend
from alignlab.inference.native.adapters import live_adapters
from alignlab.inference.native.architecture import describe
from alignlab.losses.ppo import ScorePosition
from alignlab.models.language.actor_critic import ActorCritic, Critic, without_dropout
from alignlab.models.language.context import context_length
from alignlab.models.language.loading import load_language_model
from alignlab.models.language.quantized import packed
from alignlab.systems.diverged import Diverged
from alignlab.systems.language.export import build_net, export_model, quantised
from alignlab.systems.rlhf.critic_group import with_critic_group
from alignlab.systems.rlhf.objective import Experience, Objective
from alignlab.systems.rlhf.parts import sent
from alignlab.systems.rlhf.precision import check_precision, float32_tensors, own_precision
from alignlab.systems.rlhf.reward import Function, Reward, as_reward
from alignlab.systems.rlhf.reward_text import Scored
from alignlab.systems.rlhf.rollout import (
    Responses,
    Trajectory,
    evaluate,
    generate,
    prompts_of,
    request_seeds,
    sampler_error,
    verify_head,
)
from alignlab.systems.rlhf.update import Update
from alignlab.types.language import LanguageVocabulary, PromptBatch

SAMPLER_TOLERANCE = {
    True: 1e-3,
    False: 0.2,
}  # nats, mean over tokens: where all is float32, and elsewhere; both stay far below
VALIDATION_SEED = 0x5EED


class Answer(NamedTuple):
    """A response with all that is known about it, for tables and validation."""

    prompt: str
    response: str
    score: float
    judge: float | None
    kl: float  # nats of the whole response
    tokens: list[int]
    ended: bool


def default_backend(model: nn.Module) -> Backend:
    """Our own decode loop where it can run a live model of this kind, else the one of transformers."""
    try:
        live_adapters(model, describe(model.config))
    except ValueError:
        return TransformersBackend()
    return TransformersBackend() if packed(model) else CompiledBackend()


class OnPolicySystem(pl.LightningModule):
    """Rolls out, scores and improves; sub-classes turn scores into advantages.

    Parameters
    ----------
    net
        builds the supervised model to start from, `net(vocabulary=...)`; it is the reference.
    peft
        adds an adapter, `peft(net)`; None trains everything.
    critic
        see `ActorCritic`.
    reward
        run directory of a reward model, dotted path of a function of (prompts, responses), or a node with `_target_`.
    judge
        the same, for validation only: training never sees it.
    response_length, temperature
        of the rollout; log-probabilities are taken at this temperature everywhere.
    group_size
        responses to each prompt.
    update
        epochs, minibatches, clipping, the critic's rate.
    backend
        makes the backend that generates; None: our own decode loop on the live policy, or transformers' where that knows neither
        architecture nor quantised weights.
    stop_ids
        tokens that end a response besides the tokenizer's end.
    seed
        of rollouts and minibatches, as of the run.
    export_merged
        whether the export of an adapter holds the whole model besides.
    """

    def __init__(
        self,
        net: Callable[..., nn.Module],
        reward: str | Function | Reward,
        *,
        peft: Callable[..., nn.Module] | None,
        critic: Critic,
        vocabulary: LanguageVocabulary,
        optim: Callable[..., dict],
        objective: Objective | None,
        update: Update | None,
        judge: str | Function | Reward | None = None,
        response_length: int = 53,
        temperature: float = 1.0,
        group_size: int = 1,
        backend: Callable[[], Backend] | None = None,
        stop_ids: tuple[int, ...] = (),
        seed: int = 0,
        score_position: ScorePosition = "last",
        export_merged: bool = True,
    ) -> None:
        super().__init__()
        for key, value in (("response_length", response_length), ("group_size", group_size)):
            if value < 1:
                raise ValueError(f"model.{key}={value} must be at least 1")
        if temperature <= 0:
            raise ValueError(f"model.temperature={temperature} must be positive: a greedy policy learns nothing")
        self.automatic_optimization = False
        self.build, self.peft, self.critic = net, peft, critic
        self.optim, self.vocabulary = optim, vocabulary
        self.objective, self.update = objective or Objective(), update or Update()
        self.reward = as_reward(reward)
        self.judge = None if judge is None else as_reward(judge, "model.judge")
        self.group_size, self.seed, self.score_position = group_size, seed, score_position
        self.make_backend, self.export_merged = backend, export_merged
        self.sampling = Sampling(response_length, temperature, stop_ids=tuple(stop_ids))
        self.net: ActorCritic | None = None
        self.tokenizer: Any = None
        self.backend: Backend | None = None
        self._ready_on: torch.device | None = None
        self._validated: list[Answer] = []

    # What a sub-class says

    def experience(self, t: Trajectory, score: Tensor) -> tuple[Experience, dict[str, Tensor]]:
        """Advantages of a rollout from its scores (B,), and metrics."""
        raise NotImplementedError

    def learn_from(self, metrics: dict[str, float], responses: int) -> None:
        """What the system itself adapts after an update of so many responses of all ranks, from the update's metrics."""

    @property
    def needs_reference(self) -> bool:
        """Whether anything depends on the reference's log-probabilities."""
        return True

    # Building

    def setup(self, stage: str) -> None:
        """Raises ValueError in a precision that can't work, and under a strategy that cuts parameters or optimizer up.

        Rollouts read whole weights, and one step holds several updates.
        """
        if isinstance(self.trainer.strategy, ModelParallelStrategy | DeepSpeedStrategy):
            raise ValueError(
                "on-policy training (ppo, grpo) needs whole weights: take trainer=ddp, not fsdp or deepspeed"
            )
        check_precision(self.trainer.precision)

    def configure_model(self) -> None:
        """Build policy, critic and reference, once."""
        if self.net is None:
            net = build_net(self.build, self.peft, self.vocabulary)
            if packed(net) == "llm_int8":
                raise ValueError(
                    "model.net.quantization=llm_int8 rounds activations together with the rows beside them, so that a token's log-probability depends on "
                    "its batch: on-policy training needs int8 or nf4"
                )
            self.net = ActorCritic(net, self.critic, self.needs_reference)

    def configure_optimizers(self) -> dict:
        """Whatever is trainable, in one optimizer; the critic's own parameters at their own rate."""
        built = self.optim(self.net, total_steps=self.trainer.estimated_stepping_batches)
        return with_critic_group(built, self.net.critic_parameters(), self.update.critic_lr_ratio)

    def prepare(self) -> None:
        """Make the backend, bind rewards and check the output layer, once a device; called before the first rollout."""
        device = self.net.device
        if self._ready_on == device:
            return
        with own_precision(device):
            self._prepare(device)
        self._ready_on = device

    def _prepare(self, device: torch.device) -> None:
        self.net.move_reference(device)
        self.tokenizer = getattr(self.trainer.datamodule, "tokenizer", None)
        renderer = getattr(self.trainer.datamodule, "renderer", None)
        ids = torch.arange(1, 9, device=device)[None] % self.net.head.out_features
        verify_head(self.net, ids, self._tolerance)
        for reward in (self.reward, self.judge):
            if reward is not None:
                reward.bind(self.net, self.tokenizer)
                if renderer is not None and hasattr(reward, "read_as_trained"):
                    reward.read_as_trained(renderer, self.sampling.stop_ids)
        self.backend = self.make_backend() if self.make_backend is not None else default_backend(self.net.model)
        self.backend.load(
            ModelSource("policy", dtype=self._weight_type, model=self.net.model, tokenizer=self.tokenizer)
        )
        without_dropout(self.net)  # a backend may have changed the mode

    @property
    def _weight_type(self) -> Literal["float32", "bfloat16"]:
        return "bfloat16" if self.net.head.weight.dtype == torch.bfloat16 else "float32"

    @property
    def _tolerance(self) -> float:
        return 0.3 if self.net.head.weight.dtype == torch.bfloat16 else 1e-3

    # One update

    def transfer_batch_to_device(self, batch: PromptBatch, device: torch.device, dataloader_idx: int) -> PromptBatch:
        """Prompts stay on the host, where backends want them."""
        return batch

    def training_step(self, batch: PromptBatch, batch_index: int) -> None:
        """Rollout, scores, and all optimizer steps on them; counts as one step of the trainer. The device is asked once, at the end."""
        with float32_tensors():
            self.prepare()
            number = self.trainer.global_step
            responses, t = self.rollout(batch, self.seed, number)
            score = self.score(self.reward, responses)
            e, metrics = self.experience(t, score)
            metrics |= self.update.run(self, t, e, number)
            metrics |= {
                "objective/score": reduce_mean(score.mean()),
                "objective/response_length": reduce_mean(t.length.float().mean()),
                "objective/ended": reduce_mean(t.ended.float().mean()),
                "ppo/sampler_error": reduce_mean(sampler_error(t)),
            }
            table = torch.stack([value.float() for value in metrics.values()])
            self.log_dict(dict(zip(metrics, table.unbind(), strict=True)), batch_size=len(score))
            read = dict(zip(metrics, table.tolist(), strict=True))
        self._check(read, number)
        self.learn_from(read, len(score) * world_size())

    def _check(self, metrics: dict[str, float], number: int) -> None:
        """Raises Diverged after a gradient that wasn't finite (on a device its step was none), RuntimeError where sampler and policy are different models.

        Every KL estimate would then be biased, and often negative.
        """
        norm, error = metrics.get("ppo/grad_norm", 0.0), metrics["ppo/sampler_error"]
        exact = {p.dtype for p in self.net.model.parameters()} == {torch.float32} and packed(self.net.model) is None
        exact &= not torch.is_autocast_enabled(self.net.device.type)
        if error > SAMPLER_TOLERANCE[exact]:
            name = type(self.backend).__name__
            raise RuntimeError(
                f"{name} samples from another model than the policy: log-probabilities differ by {error:.3g} on average"
            )
        if not math.isfinite(norm):
            raise Diverged(f"gradient is {norm} in update {number}")

    def rollout(
        self, batch: PromptBatch, seed: int, update: int, repeats: int | None = None
    ) -> tuple[Responses, Trajectory]:
        """Responses to a batch of prompts and all that the nets say about them."""
        repeats = repeats or self.group_size
        prompts = prompts_of(batch, repeats)
        seeds = request_seeds(seed, update, rank() * len(prompts), len(prompts))
        limit = context_length(self.net.model.config)
        with own_precision(self.net.device):
            responses = generate(self.backend, prompts, seeds, self.sampling, limit)
        responses = responses._replace(contents=batch.content and [c for c in batch.content for _ in range(repeats)])
        return responses, evaluate(
            self.net,
            responses,
            temperature=self.sampling.temperature,
            micro_batch=self.update.micro_batch_size,
            position=self.score_position,
            with_reference=self.needs_reference,
        )

    def score(self, reward: Reward, responses: Responses) -> Tensor:
        """Scores (B,) of responses, float32 on the policy's device."""
        sequences = [p + r for p, r in zip(responses.prompts, responses.responses, strict=True)]
        scored = Scored(*self.texts(responses), sequences, responses.ended, responses.contents)
        with torch.no_grad(), own_precision(self.net.device):
            score = reward(scored).float()
            return score if score.device == self.net.device else sent([score], self.net.device)[0]

    def texts(self, responses: Responses) -> tuple[list[str], list[str]]:
        """Prompts and responses as people read them; a response is what it adds to its prompt, its first space included."""
        rows = zip(responses.prompts, responses.responses, strict=True)
        wholes = self.tokenizer.batch_decode([p + r for p, r in rows], skip_special_tokens=True)
        prompts = self.tokenizer.batch_decode(responses.prompts, skip_special_tokens=True)
        alone = self.tokenizer.batch_decode(responses.responses, skip_special_tokens=True)
        pairs = zip(prompts, wholes, alone, strict=True)
        return prompts, [whole[len(p) :] if whole.startswith(p) else response for p, whole, response in pairs]

    # Validation, which changes nothing

    def validation_step(self, batch: PromptBatch, batch_index: int) -> None:
        """One response to each held-out prompt, always with the same seeds."""
        self._validated += self.answers(batch, batch_index)

    def answers(self, batch: PromptBatch, update: int = 0, repeats: int = 1) -> list[Answer]:
        """Responses to prompts with scores; the same for the same weights, whatever was drawn before."""
        with float32_tensors():
            self.prepare()
            responses, t = self.rollout(batch, VALIDATION_SEED, update, repeats)
            score = self.score(self.reward, responses).tolist()
            judged = [None] * len(score) if self.judge is None else self.score(self.judge, responses).tolist()
        kl = torch.where(t.mask, t.logprob - t.reference, 0.0).sum(1).tolist()
        columns = (*self.texts(responses), score, judged, kl, responses.responses, responses.ended)
        return [Answer(*row) for row in zip(*columns, strict=True)]

    def on_validation_epoch_end(self) -> None:
        """Means over held-out prompts."""
        found, self._validated = self._validated, []
        if not found:
            return
        count = len(found)
        values = {
            "val/score": sum(a.score for a in found) / count,
            "val/kl": sum(a.kl for a in found) / count,
            "val/response_length": sum(len(a.tokens) for a in found) / count,
            "val/ended": sum(a.ended for a in found) / count,
            "val/distinct_2": distinct([a.tokens for a in found], 2),
        }
        if self.judge is not None:
            values["val/judge"] = sum(a.judge for a in found) / count
        for name, value in values.items():
            self.log(name, value, sync_dist=world_size() > 1, batch_size=count, prog_bar=name == "val/score")

    # State

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """Write the policy in Hugging Face's format: the model, or the adapter and beside it, in `merged/`, base and adapter in one."""
        export_model(self.net.model, folder)
        if self.net.adapters and (folder / "adapter_config.json").exists() and self.export_merged:
            if quantised(self.net.model):  # into the base in full precision, as it lies on disk
                load_language_model(str(folder), self._weight_type).merge_and_unload().save_pretrained(
                    folder / "merged"
                )
            else:
                base = self.net.model.__dict__.pop("_alignlab_base")
                export_model(self.net.model, folder / "merged")
                self.net.model.__dict__["_alignlab_base"] = base
            self.tokenizer.save_pretrained(folder / "merged")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Frozen weights stay where they came from; what the system itself remembers is added."""
        named = self.net.named_parameters(remove_duplicate=False)  # tied weights under both their names
        frozen = {f"net.{name}" for name, p in named if not p.requires_grad}
        checkpoint["state_dict"] = {n: v for n, v in checkpoint["state_dict"].items() if n not in frozen}
        checkpoint["rlhf"] = self.remembered()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes back what `on_save_checkpoint` added."""
        self.remember(checkpoint.get("rlhf", {}))

    def remembered(self) -> dict[str, Any]:
        """State besides weights and optimizer. Seeds are functions of the update's number: they need none."""
        return {}

    def remember(self, state: dict[str, Any]) -> None:
        """The counterpart of `remembered`."""

    def load_state_dict(self, state_dict: dict[str, Tensor], strict: bool = True, assign: bool = False):
        """Loads a checkpoint's weights; only frozen ones may be missing. Raises RuntimeError otherwise, as torch does."""
        found = super().load_state_dict(state_dict, strict=False, assign=assign)
        trained = {f"net.{name}" for name, p in self.net.named_parameters() if p.requires_grad}
        missing = [name for name in found.missing_keys if name in trained]
        if strict and (missing or found.unexpected_keys):
            raise RuntimeError(f"missing keys {missing}, unexpected keys {found.unexpected_keys}")
        return found
