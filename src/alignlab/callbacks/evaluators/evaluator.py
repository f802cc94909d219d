"""What all evaluators share: when they run, and that training doesn't notice."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from alignlab.callbacks.keeping.random_states import preserved
from alignlab.strategies.replica import whole

Every = Literal["validation", "end"]
Batch = TypeVar("Batch", bound=tuple)


@contextmanager
def untouched(module: torch.nn.Module) -> Iterator[None]:
    """Eval mode without gradients inside; modes of all parts and all random states as before afterwards."""
    training = [(part, part.training) for part in module.modules()]
    with preserved(next(module.parameters()).device), torch.no_grad():
        module.eval()
        try:
            yield
        finally:
            for part, was_training in training:
                part.training = was_training


@contextmanager
def evaluation(trainer: lightning.Trainer, module: lightning.LightningModule) -> Iterator[lightning.LightningModule]:
    """The module to evaluate: whole on every rank, untouched, in the trainer's precision."""
    module = whole(module)
    with untouched(module), trainer.precision_plugin.forward_context():
        yield module


def is_last(trainer: lightning.Trainer) -> bool:
    """Whether this validation is the last: training has reached its last step, is told to stop, or there is none."""
    if trainer.state.fn != TrainerFn.FITTING:
        return True
    return trainer.should_stop or trainer.global_step >= trainer.estimated_stepping_batches


def read_by(trainer: lightning.Trainer, key: str, method: str) -> Any:
    """The run's data module, or its data set, whichever has `method`.

    Raises ValueError if neither has what the evaluator `key` reads.
    """
    datamodule = getattr(trainer, "datamodule", None)
    for holder in (datamodule, getattr(datamodule, "source", None)):
        if hasattr(holder, method):
            return holder
    raise ValueError(f"{key} needs data with {method}(), which {type(datamodule).__name__} lacks: {key}=null drops it")


def transfer(trainer: lightning.Trainer, module: lightning.LightningModule) -> Callable[[Batch], Batch]:
    """A function that moves a NamedTuple of tensors to the module's device and type, already normalised as it is."""

    def move(batch: Batch) -> Batch:
        moved = type(batch)(*(x.to(module.device, non_blocking=True) for x in batch))
        return trainer.precision_plugin.convert_input(moved)

    return move


def most_batches(trainer: lightning.Trainer, number: int) -> int | None:
    """How many of so many batches `trainer.limit_val_batches` lets an evaluator have; None: all."""
    limit = trainer.limit_val_batches
    if isinstance(limit, float):
        return None if limit == 1.0 else max(1, int(limit * number))
    return limit


class Evaluator(Callback):
    """Calls `evaluate` after every validation or only after the last, and logs what it returns as `val/<name>`.

    Ranks: all of them evaluate, each its own part, after gathering a sharded system (`strategies.replica`).

    `evaluate` runs in eval mode, without gradients, in the trainer's precision; on several ranks all of them take
    part.
    """

    def __init__(self, every: Every = "validation") -> None:
        if every not in ("validation", "end"):
            raise ValueError(f'an evaluator runs every "validation" or at the "end", not {every!r}')
        self.every = every
        self._last_done: int | None = None  # step of the last complete evaluation

    def evaluate(self, trainer: lightning.Trainer, module: lightning.LightningModule, last: bool) -> dict[str, float]:
        """Metrics by name, without the split."""
        raise NotImplementedError

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        last = is_last(trainer)
        if last or self.every == "validation":
            metrics = self._evaluate(trainer, pl_module, last)
            pl_module.log_dict(metrics, sync_dist=trainer.world_size > 1)
            self._last_done = trainer.global_step if last else None

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Make up for an end that no validation saw coming, such as early stopping or an interruption by a limit."""
        if self._last_done == trainer.global_step or trainer.limit_val_batches == 0 or trainer.interrupted:
            return
        metrics = self._evaluate(trainer, pl_module, last=True)
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in metrics.items()})
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.fit_loop.epoch_loop._batches_that_stepped)

    def _evaluate(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, last: bool
    ) -> dict[str, float]:
        with evaluation(trainer, pl_module) as module:
            return {f"val/{name}": value for name, value in self.evaluate(trainer, module, last).items()}
