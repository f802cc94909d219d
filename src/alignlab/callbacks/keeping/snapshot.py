"""The state of training at the beginning of a step, to be put back in the same process: for one step back, and for
many.

Tensors are the ones this rank holds: its shards where a strategy shards. Nothing is said about epochs and data, which
go on.
"""

import copy
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch import Tensor

from alignlab.callbacks.keeping import random_states
from alignlab.callbacks.keeping.host_copies import host_copies
from alignlab.callbacks.keeping.random_states import States


class MovingState:
    """What a step changes besides trained parameters and optimizer: teacher, queues, statistics, random states,
    schedule, counters.

    Which tensors those are is learned from their version counters, so that large frozen parts are never copied; a
    tensor that moves for the first time is known from the step after. `known`: what was learned before the run was
    resumed.
    """

    def __init__(self, module: lightning.LightningModule, known: list[int]) -> None:
        untrained = [p for p in module.parameters() if not p.requires_grad]
        self.tensors = [_local(x) for x in (*untrained, *module.buffers())]
        self._versions = [x._version for x in self.tensors]
        self.moving = list(known)
        self._saved = [torch.empty_like(self.tensors[i]) for i in self.moving]
        self._rest: _Rest | None = None

    def take_down(self, trainer: lightning.Trainer) -> None:
        """Copies what moves, on its device."""
        versions = [x._version for x in self.tensors]
        moved = {i for i, (old, new) in enumerate(zip(self._versions, versions, strict=True)) if old != new}
        if not moved <= set(self.moving):
            self.moving = sorted(moved | set(self.moving))
            self._saved = [torch.empty_like(self.tensors[i]) for i in self.moving]
        if self.moving:
            torch._foreach_copy_(self._saved, [self.tensors[i].detach() for i in self.moving])
        self._versions, self._rest = versions, _Rest.of(trainer)

    def put_back(self, trainer: lightning.Trainer) -> None:
        """The state of the last `take_down`."""
        with torch.no_grad():
            for i, saved in zip(self.moving, self._saved, strict=True):
                self.tensors[i].copy_(saved)
        self._rest.put_back(trainer)


@dataclass
class _Rest:
    """Random states, schedules and counters."""

    random: States
    schedules: list[dict[str, Any]]
    rates: list[list[float]]
    steps: int
    logged_step: int

    @staticmethod
    def of(trainer: lightning.Trainer) -> "_Rest":
        return _Rest(
            random=random_states.capture(trainer.strategy.root_device),
            schedules=[copy.deepcopy(c.scheduler.state_dict()) for c in trainer.lr_scheduler_configs],
            rates=[[group["lr"] for group in optimizer.param_groups] for optimizer in trainer.optimizers],
            steps=trainer.global_step,
            logged_step=trainer.fit_loop.epoch_loop._batches_that_stepped,
        )

    def put_back(self, trainer: lightning.Trainer) -> None:
        random_states.restore(self.random, trainer.strategy.root_device)
        for config, state in zip(trainer.lr_scheduler_configs, self.schedules, strict=True):
            config.scheduler.load_state_dict(copy.deepcopy(state))
        for optimizer, rates in zip(trainer.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
        loop = trainer.fit_loop.epoch_loop
        back = trainer.global_step - self.steps
        progress = loop.automatic_optimization.optim_progress.optimizer.step
        for counter in (progress.total, progress.current):
            counter.ready, counter.completed = max(0, counter.ready - back), max(0, counter.completed - back)
        loop._batches_that_stepped = self.logged_step


@dataclass
class Snapshot:
    """All of it, with trained parameters and optimizer, in host memory."""

    step: int
    tensors: list[Tensor]  # trained parameters, then what moves
    moving: list[int]
    optimizers: list[dict[str, Any]]
    module: dict[str, Any]  # what the module saves by itself
    rest: _Rest

    @staticmethod
    def of(trainer: lightning.Trainer, module: lightning.LightningModule, moving: MovingState) -> "Snapshot":
        """The present state; call it at the beginning of a step."""
        own: dict[str, Any] = {}
        module.on_save_checkpoint(own)
        tensors = [*_trained(module), *(moving.tensors[i] for i in moving.moving)]
        return Snapshot(
            step=trainer.global_step,
            moving=list(moving.moving),
            **host_copies(
                {
                    "tensors": [x.detach() for x in tensors],
                    "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
                    "module": own,
                },
                fresh=True,
            ),
            rest=_Rest.of(trainer),
        )

    def put_back(self, trainer: lightning.Trainer, module: lightning.LightningModule, moving: MovingState) -> None:
        """Makes it the present state; the snapshot can be used again."""
        targets = [*_trained(module), *(moving.tensors[i] for i in self.moving)]
        with torch.no_grad():
            for target, saved in zip(targets, self.tensors, strict=True):
                target.copy_(saved, non_blocking=True)
        for optimizer, state in zip(trainer.optimizers, self.optimizers, strict=True):
            optimizer.load_state_dict(host_copies(state, fresh=True))
        module.on_load_checkpoint(host_copies(self.module, fresh=True))
        self.rest.put_back(trainer)


def _trained(module: lightning.LightningModule) -> list[Tensor]:
    return [_local(p) for p in module.parameters() if p.requires_grad]


@torch.no_grad()
def _local(x: Tensor) -> Tensor:
    return x.to_local() if hasattr(x, "to_local") else x
