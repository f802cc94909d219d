"""Runs any method under Lightning: its hooks, what is logged, accumulated batches, what DDP and sharding need."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from alignlab.methods.method import Method
from alignlab.methods.step import Step
from alignlab.systems.accumulation import StepSums, for_backward, say_what_differs, step_of, steps_of_epoch
from alignlab.systems.averages import Tallies, is_logged, logged_means

log = logging.getLogger(__name__)


class MethodSystem(pl.LightningModule):
    """A method and its optimizer as a LightningModule.

    The method's parts (`net`, `twin`, `queue`) are this module's parts under the same names: those of checkpoints.
    What else a method offers (`encode_image`, `export`) can be asked of the system.

    Args:
        make: builds the method, and with it the net; called in `configure_model`, where the trainer has set dtype and
            device.
        optim: `optim(net, total_steps=...)` gives what `configure_optimizers` returns.
    """

    def __init__(self, make: Callable[[], Method], optim: Callable[..., dict]) -> None:
        super().__init__()
        self.make, self.optim = make, optim
        self.method: Method | None = None
        self._step = Step()  # of the batch that is being trained on
        self._kept: Any = None
        self._sums, self._tallies = StepSums(), Tallies()

    def __getattr__(self, name: str) -> Any:
        """Parts of this module, or else what the method offers."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if (method := self.__dict__.get("method")) is None:
                raise
            return getattr(method, name)

    def configure_model(self) -> None:
        """Builds the method, once."""
        if self.method is None:
            self.__dict__["method"] = method = (
                self.make()
            )  # no part itself, or names in checkpoints would begin with it
            for name, part in method.named_children():
                setattr(self, name, part)

    def train(self, mode: bool = True) -> "MethodSystem":
        """Sets the mode of the method too, which is no part of this module."""
        if self.method is not None:
            self.method.training = mode
        return super().train(mode)

    def on_fit_start(self) -> None:
        """Refuses what can't work, says what isn't the same."""
        if self.method.backward_within and isinstance(self.trainer.strategy, DeepSpeedStrategy):
            # whose engine takes the first backward pass that it sees for the step's
            raise ValueError(
                "model.micro_batch_size doesn't work with trainer=deepspeed: take trainer=fsdp or ddp, or set it to "
                "null"
            )
        if self.method.within_batch is not None:
            say_what_differs(self.trainer, self.method.within_batch)

    def on_train_batch_start(self, batch: Any, batch_index: int) -> None:
        """Before a step, while sharded parameters are what is stored."""
        self._step = step_of(self, batch_index)
        if self._step.index == 0:
            self.method.before_step(self._step)

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        """The method's loss; its metrics as means over the step and over ranks."""
        step = step_of(self, batch_index)
        if self.method.backward_within and step.index == 0:
            self.optimizers(use_pl_optimizer=False).zero_grad()
        self.method.training = self.training
        with self._several_backward_passes():
            output = self.method(batch, step)
        self._kept = output.kept
        sums = self._sums.add(step, {"train/loss": output.loss} | _named("train", output.metrics))
        self.log_dict(logged_means(self, sums) | _named("train", output.state), batch_size=len(batch[0]))
        self._tallies.add(output.tallies)
        if step.last and is_logged(self):
            self.log_dict(_named("train", self._tallies.means()))
        return for_backward(self, output.loss)

    def on_after_backward(self) -> None:
        """Hands the method what its forward has kept."""
        kept, self._kept = self._kept, None
        self.method.after_backward(kept)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        """Lightning's moment, after `training_step`, is too late for a step that has put gradients there: it does this
        itself.
        """
        if not self.method.backward_within:
            optimizer.zero_grad()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_index: int) -> None:
        """After the optimizer's step."""
        if self._step.last:
            self.method.after_step(self._step)

    def validation_step(self, batch: Any, batch_index: int) -> None:
        """The method's validation of one batch."""
        self.method.training = self.training
        if metrics := self.method.validate(
            batch, batch_index, Step(self.global_step, of_epoch=steps_of_epoch(self.trainer))
        ):
            self.log_dict(_named("val", metrics), batch_size=len(batch[0]), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """What the method says of all batches together."""
        if metrics := self.method.summarise():
            self.log_dict(_named("val", metrics))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint.update(self.method.saved())
        if self._tallies.sums:
            checkpoint["tallies"] = dict(self._tallies.sums)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.method.restore(checkpoint)
        self._tallies.sums = checkpoint.get("tallies", {})

    def optional_weights(self) -> set[str]:
        """Names of weights that a checkpoint may leave out."""
        return set()

    def configure_optimizers(self) -> dict:
        """Whatever is trainable in the net, with a schedule over the whole run."""
        steps = self.trainer.estimated_stepping_batches
        return self.optim(self.net, total_steps=steps, **self.method.optimizer_settings)

    @contextmanager
    def _several_backward_passes(self) -> Iterator[None]:
        """What a step with backward passes of its own needs of FSDP2: parameters outside every unit stay gathered
        until the last of them.
        """
        sharded = self.method.backward_within and isinstance(self, FSDPModule)
        if sharded:
            self.set_reshard_after_backward(False, recurse=False)
        yield
        if sharded:
            self.set_reshard_after_backward(True, recurse=False)


def _named(split: str, values: dict[str, Any]) -> dict[str, Any]:
    return {f"{split}/{name}": value for name, value in values.items()}
