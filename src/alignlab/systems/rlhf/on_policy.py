"""Runs an on-policy method under Lightning: one training step = prompts, responses, scores, several epochs of
optimizer steps.

Legend: B responses of this process.
"""

import math
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor

from alignlab.distributed.collectives import reduce_mean, world_size
from alignlab.methods.rlhf.answers import Answer, means
from alignlab.methods.rlhf.minibatch import Experience, Minibatch
from alignlab.methods.rlhf.objective import Statistics
from alignlab.methods.rlhf.precision import float32_tensors
from alignlab.methods.rlhf.rollout import Trajectory, prompts_of
from alignlab.methods.rlhf.sampler import check_sampler, sampler_error
from alignlab.methods.rlhf.update import metrics_of
from alignlab.systems.diverged import Diverged
from alignlab.systems.method_system import MethodSystem
from alignlab.systems.rlhf.critic_group import with_critic_group
from alignlab.systems.rlhf.engine import Engine, check_offload, cuts_parameters_up, engine_of
from alignlab.systems.rlhf.kept_rollouts import KeptRollouts, Rollout
from alignlab.systems.rlhf.precision import check_precision
from alignlab.systems.rlhf.redrawing import redraw
from alignlab.types.language import PromptBatch

RATIO_TOLERANCE = 1e-4  # of a run's first minibatch, in float32
Result = TypeVar("Result")


class OnPolicySystem(MethodSystem):
    """An `OnPolicyMethod` and its optimizer as a LightningModule, by manual optimization; see `MethodSystem` for the
    arguments.

    A strategy that cuts parameters up has the net gathered for each forward pass (`as_forward`), and whole copies of
    policy and reference while they speak (`OnPolicyMethod.speaking`).
    """

    forwards = ("as_forward",)

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.automatic_optimization = False
        self.kept: KeptRollouts | None = None
        self._ratio_checked = False
        self._cut_up = False
        self._validated: list[Answer] = []
        self._validating = ExitStack()

    def setup(self, stage: str) -> None:
        """Raises ValueError for a precision that can't work, and where parameters would lie on the host."""
        check_precision(self.trainer.precision)
        check_offload(self.trainer.strategy)

    def configure_model(self) -> None:
        """Builds the method, once, and tells it if its parameters are going to be cut up."""
        if self.method is not None:
            return
        super().configure_model()
        if self._trainer is not None and cuts_parameters_up(self.trainer.strategy) and not self._cut_up:
            self._cut_up = True
            self.method.cut_up()

    def as_forward(self, call: Callable[[], Result]) -> Result:
        """Does `call`, which uses the net's parameters."""
        return call()

    def configure_optimizers(self) -> dict:
        """Whatever is trainable, in one optimizer; the critic's own parameters at their own rate."""
        return with_critic_group(
            super().configure_optimizers(), self.net.critic_parameters(), self.method.update.critic_lr_ratio
        )

    def prepare(self) -> None:
        """See `OnPolicyMethod.prepare`; called before the first rollout, when the net is on its device."""
        data = self.trainer.datamodule
        self.method.prepare(getattr(data, "tokenizer", None), getattr(data, "renderer", None))

    def transfer_batch_to_device(self, batch: PromptBatch, device: torch.device, dataloader_idx: int) -> PromptBatch:
        """Prompts stay on the host, where backends want them."""
        return batch

    def training_step(self, batch: PromptBatch, batch_index: int) -> None:
        """Rollout, scores, and all optimizer steps on them; counts as one step of the trainer. The device is asked
        once, at the end.
        """
        with float32_tensors():
            number, engine = self.trainer.global_step, engine_of(self)
            with self.method.speaking():
                self.prepare()
                responses, scores, redrawn = self._rolled_out(batch, number)
            whole = self.method.whole
            with torch.no_grad(), nullcontext() if whole is None else whole.reference():
                t = engine.forward(lambda: self.method.assess(responses))
            e, metrics = self.method.experience(t, scores.learned)
            metrics |= self.improve(engine, t, e, number)
            metrics |= (
                scores.metrics()
                | redrawn
                | {
                    "objective/response_length": reduce_mean(t.length.float().mean()),
                    "objective/ended": reduce_mean(t.ended.float().mean()),
                    "ppo/sampler_error": reduce_mean(sampler_error(t)),
                }
            )
            table = torch.stack([value.float() for value in metrics.values()])
            self.log_dict(dict(zip(metrics, table.unbind(), strict=True)), batch_size=len(responses.ended))
            read = dict(zip(metrics, table.tolist(), strict=True))
        corrected = self.method.objective.sampler_ratio_max is not None
        check_sampler(read["ppo/sampler_error"], self.method.backend, self.net.model, corrected)
        norm = read.get("ppo/grad_norm", 0.0)
        if not math.isfinite(norm):  # on a device its step was none
            raise Diverged(f"gradient is {norm} in update {number}")
        self.method.learn_from(read, len(responses.ended) * world_size())

    def _rolled_out(self, batch: PromptBatch, number: int) -> Rollout:
        """Responses with scores, or those of another run."""
        if self.kept is not None and self.kept.source is not None:
            method = self.method
            prompts = None if getattr(method, "redraws", 0) else prompts_of(batch, method.group_size)
            return self.kept.read(number, method.net.device, prompts)
        responses = self.method.respond(batch, number)
        scores = self.method.scores(self.method.reward, responses)
        rollout = redraw(self.method, self.trainer.datamodule, number, responses, scores)
        if self.kept is not None:
            self.kept.write(number, rollout)
        return rollout

    def improve(self, engine: Engine, t: Trajectory, e: Experience, number: int) -> dict[str, Tensor]:
        """All optimizer steps of update `number`. Returns metrics, means over the minibatches that were stepped."""
        update = self.method.update
        done: list[Statistics] = []
        for parts in self.method.minibatches(t, e, number):
            statistics = self._gradient(engine, parts)
            self._check_ratio(statistics)
            if update.went_too_far(statistics):
                engine.forget()
                break
            norm = engine.clip(update.max_grad_norm)
            if norm.device.type == "cpu" and not norm.isfinite():
                raise Diverged(f"gradient is {norm.item()} in update {number}")
            statistics.sums["grad_norm"] = norm.detach() / world_size()  # metrics are summed over ranks
            engine.step()
            done.append(statistics)
        self.optimizers().step()  # without gradients it moves nothing: the trainer counts one step an update
        self.lr_schedulers().step()
        count = torch.full((), float(len(done)), device=t.ids.device)
        return metrics_of(done) | {"ppo/minibatches": count}

    def _gradient(self, engine: Engine, parts: list[Minibatch]) -> Statistics:
        """Of one minibatch, summed over micro-batches and averaged over ranks."""
        statistics = Statistics()
        for index, part in enumerate(parts):
            with engine.micro_batch(last=index == len(parts) - 1):
                loss = engine.forward(lambda part=part: self.method.objective(self.net, part, statistics))
                # Shares of a global mean are to be summed over ranks, which averages them.
                self.manual_backward(loss * world_size())
        return statistics

    def _check_ratio(self, statistics: Statistics) -> None:
        """New and old log-probabilities of a run's first minibatch must agree: same weights, same arithmetic, no
        dropout.
        """
        if self._ratio_checked or statistics.largest_ratio_error is None:
            return
        self._ratio_checked = True
        exact = self.net.head.weight.dtype == torch.float32 and self.trainer.precision in ("32-true", "64-true")
        error = float(statistics.largest_ratio_error)
        if exact and error > RATIO_TOLERANCE:
            raise RuntimeError(
                f"the ratio before the first update is off by {error:.3g}; it must be 1 within {RATIO_TOLERANCE}"
            )
        self.log("ppo/first_ratio_error", error, batch_size=1)

    # Validation, which changes nothing

    def on_validation_epoch_start(self) -> None:
        """Whole weights for all of it: ranks may have different numbers of batches."""
        self._validating.enter_context(self.method.speaking(answers=True))

    def validation_step(self, batch: PromptBatch, batch_index: int) -> None:
        """One response to each held-out prompt, always with the same seeds."""
        self._validated += self.answers(batch, batch_index)

    def answers(self, batch: PromptBatch, number: int = 0, repeats: int = 1) -> list[Answer]:
        """See `OnPolicyMethod.answers`; within `speaking(answers=True)`."""
        with float32_tensors():
            self.prepare()
        return self.method.answers(batch, number, repeats)

    def on_validation_epoch_end(self) -> None:
        """Means over held-out prompts."""
        self._validating.close()
        answers, self._validated = self._validated, []
        for name, value in means(answers).items() if answers else ():
            self.log(
                f"val/{name}", value, sync_dist=world_size() > 1, batch_size=len(answers), prog_bar=name == "score"
            )

    # State

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Frozen weights stay where they came from; what the method itself remembers is added."""
        frozen = self.optional_weights()
        checkpoint["state_dict"] = {n: v for n, v in checkpoint["state_dict"].items() if n not in frozen}
        super().on_save_checkpoint(checkpoint)

    def optional_weights(self) -> set[str]:
        """Names of what is frozen."""
        named = self.net.named_parameters(remove_duplicate=False)  # tied weights under both their names
        return {f"net.{name}" for name, p in named if not p.requires_grad}

    def load_state_dict(self, state_dict: dict[str, Tensor], strict: bool = True, assign: bool = False):
        """Loads a checkpoint's weights; only frozen ones may be missing. Raises RuntimeError
        otherwise, as torch does.
        """
        keys = super().load_state_dict(state_dict, strict=False, assign=assign)
        trained = {f"net.{name}" for name, p in self.net.named_parameters() if p.requires_grad}
        missing = [name for name in keys.missing_keys if name in trained]
        if strict and (missing or keys.unexpected_keys):
            raise RuntimeError(f"missing keys {missing}, unexpected keys {keys.unexpected_keys}")
        return keys
