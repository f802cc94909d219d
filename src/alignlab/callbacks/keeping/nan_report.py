"""Ends a run at its first loss or gradient that isn't finite, and says in which module it came up.

A healthy step costs one norm over the gradients. Nothing is hooked: only when a step has gone wrong is it done again,
from the same weights, batch and random states, with a look at the output of every module.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from alignlab.callbacks.keeping import random_states
from alignlab.callbacks.keeping.spike_guard import SpikeGuard
from alignlab.callbacks.meters.gradients import BeforeStep
from alignlab.distributed import collectives
from alignlab.systems.diverged import Diverged


class NanReport(BeforeStep):
    """Raises `Diverged` before the optimizer takes a step with numbers that aren't finite; on several ranks all raise
    together.

    With `16-mixed` only the loss counts: its scaler leaves out steps whose gradient isn't finite. PPO and GRPO look at
    the gradients of their own steps.

    Ranks: all of them ask together whether a number isn't finite, and do the step again together.

    Args:
        every_n_steps: how often the device is asked, which then has to be waited for. None: every step on a CPU, at
            logging steps and before checkpoints on a GPU, where the step that went wrong is named but its module only
            if it is the step that was asked about: to learn that, resume the run with
            callbacks.nan_report.every_n_steps=1.
    """

    def __init__(self, every_n_steps: int | None = None) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"every_n_steps is {every_n_steps}; it must be at least 1")
        self.every_n_steps = every_n_steps
        # (2,) on the device: step of the first bad loss, of the first bad gradient; -1: none
        self._first: Tensor | None = None
        self._batches: list[tuple[Any, int, random_states.States]] = []  # of the present step

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._batches = []
        self._batches.append((batch, batch_idx, random_states.capture(pl_module.device)))

    def look(self, trainer: Any, module: Any, optimizer: Any, loss: Tensor | None, norm: Tensor | None) -> None:
        """Notes on the device what isn't finite, and asks it where it is time."""
        if any(isinstance(callback, SpikeGuard) and callback.intervenes for callback in trainer.callbacks):
            return
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            # float16's scaler passes over steps whose gradient overflows, and some do while it looks for its scale
            norm = None
        nothing = torch.zeros((), device=module.device)
        values = torch.stack([nothing if x is None else x.reshape(()).float() for x in (loss, norm)])
        if self._first is None:
            self._first = torch.full((2,), -1, device=values.device, dtype=torch.int64)
        self._first.masked_fill_(~values.isfinite() & (self._first < 0), trainer.global_step)
        if self._is_time(trainer, module):
            self._read(trainer, module, values)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._read(trainer, pl_module, None)  # no checkpoint replaces the last good one

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._read(trainer, pl_module, None)

    def _is_time(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> bool:
        every = self.every_n_steps or (1 if module.device.type == "cpu" else trainer.log_every_n_steps or 50)
        return (trainer.global_step + 1) % every == 0

    def _read(self, trainer: lightning.Trainer, module: lightning.LightningModule, values: Tensor | None) -> None:
        """Raises Diverged if any rank has met a number that isn't finite."""
        if self._first is None:
            return
        # over ranks the earliest: -1 counts as latest
        first = collectives.reduce_min(self._first.where(self._first >= 0, torch.iinfo(torch.int64).max)).tolist()
        step = min(first)
        if step == torch.iinfo(torch.int64).max:
            return
        what, index = ("loss", 0) if first[0] == step else ("gradient", 1)
        again = values is not None and step == trainer.global_step and module.automatic_optimization
        where = self._where(trainer, module) if again else None
        worst = values[index] if values is not None and step == trainer.global_step else None
        reports = collectives.gather_objects((where, None if worst is None or worst.isfinite() else _name(worst)))
        rank, places = next(((r, place) for r, (place, _) in enumerate(reports) if place), (0, None))
        value = next((v for _, v in reports if v), "not finite")
        on_rank = f" on rank {rank}" if len(reports) > 1 and places else ""
        raise Diverged(f"{what} is {value} at step {step}" + (f": first in {places}{on_rank}" if places else ""))

    def _where(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> str | None:
        """Does the step again and names what first isn't finite.

        Every rank goes all the way: ranks exchange tensors within.
        """
        places = []
        for batch, batch_idx, states in self._batches:
            random_states.restore(states, module.device)
            module.zero_grad(set_to_none=True)
            places += ["the batch"] * (not all(x.isfinite().all() for x in _floating(batch)))
            with watched(module) as modules, _silent(module), trainer.precision_plugin.train_step_context():
                output = module.training_step(batch, batch_idx)
                loss = output["loss"] if isinstance(output, dict) else output
                modules += ["the loss"] * (not loss.isfinite().all())
                loss.backward()
            places += modules
            bad = (n for n, p in module.named_parameters() if p.grad is not None and not p.grad.isfinite().all())
            places += [f"{name} (gradient)" for name in bad]
        return places[0] if places else None


@contextmanager
def watched(module: nn.Module) -> Iterator[list[str]]:
    """Collects, in order, which modules' outputs aren't finite, and then which outputs' gradients aren't."""
    places: list[str] = []

    def look(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            for x in _floating(output):
                if not x.isfinite().all():
                    places.append(f"{name} (output)")
                elif x.requires_grad:
                    x.register_hook(
                        lambda g: None if g.isfinite().all() else places.append(f"{name} (gradient of output)")
                    )

        return hook

    handles = [part.register_forward_hook(look(name)) for name, part in module.named_modules() if name]
    try:
        yield places
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _silent(module: lightning.LightningModule) -> Iterator[None]:
    """What is logged inside isn't."""
    module.log = module.log_dict = lambda *_, **__: None
    try:
        yield
    finally:
        del module.log, module.log_dict


def _floating(tree: Any) -> list[Tensor]:
    leaves = torch.utils._pytree.tree_leaves(tree)
    return [x for x in leaves if isinstance(x, Tensor) and x.is_floating_point()]


def _name(value: Tensor) -> str:
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
