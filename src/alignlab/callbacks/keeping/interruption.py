"""Stops training in order after a signal on any rank: all ranks end between the same two steps, with a checkpoint."""

from pathlib import Path
from typing import Any

import lightning
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from alignlab.launch.signals import Inbox, Interrupted


class Interruption(Callback):
    """Asks all ranks at the end of every optimizer step whether one has received a signal, and raises `Interrupted` on
    all before the next step.

    Ranks: all of them ask each other once a step, over a group of its own.

    The question is an all-reduce of one integer between the processes' CPUs (gloo), started at the end of one step and
    read at the
    end of the next: nobody waits for a device, and the answer has usually come meanwhile. Lightning's own question, a
    broadcast that every step waits for on the device and that only rank zero can answer, is dropped. A validation that
    is due at that step is done first. A checkpoint is requested from those callbacks of the trainer that have
    `request` and `save`; beside one of Lightning's own kind, `last.ckpt` is written.
    """

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self._group: dist.ProcessGroup | None = None
        self._question: tuple[dist.Work, torch.Tensor] | None = None
        self._agreed = 0  # number of the signal

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self.inbox.deferred = True
        if trainer.world_size > 1 and dist.is_initialized():
            self._group = dist.new_group(backend="gloo")

    def on_sanity_check_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.inbox.keep()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.inbox.keep()
        if hasattr(trainer.fit_loop.epoch_loop, "_broadcast_sigterm_tensor"):
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._agreed:
            for callback in _savers(trainer):
                callback.save(trainer)
            raise Interrupted(self._agreed)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.fit_loop._should_accumulate():  # gradients of half a step aren't saved
            return
        self._agreed = self._agreed or self._answer()
        if self._agreed:
            for callback in trainer.checkpoint_callbacks:
                if callback in _savers(trainer):
                    callback.request(trainer)
                elif getattr(callback, "dirpath", None):
                    trainer.save_checkpoint(Path(callback.dirpath) / "last.ckpt")

    def _answer(self) -> int:
        """The largest number of a signal that any rank had received at the end of the step before; asks anew unless
        there is one.
        """
        if self._group is None:
            return self.inbox.received
        number = 0
        if self._question is not None:
            work, flag = self._question
            work.wait()
            number, self._question = int(flag), None
        if not number:
            flag = torch.tensor([self.inbox.received], dtype=torch.int32)
            self._question = dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._group, async_op=True), flag
        return number

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._question is not None:
            self._question[0].wait()
            self._question = None


def _savers(trainer: lightning.Trainer) -> list[Any]:
    return [callback for callback in trainer.checkpoint_callbacks if hasattr(callback, "request")]
