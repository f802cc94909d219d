"""The norm of all gradients before clipping: for callbacks that look at a step before it is taken, and as a metric."""

from typing import Any
from weakref import WeakKeyDictionary

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

_norms: WeakKeyDictionary[torch.optim.Optimizer, tuple[tuple[int, int], Tensor | None]] = WeakKeyDictionary()


@torch.no_grad()
def gradient_norm(optimizer: torch.optim.Optimizer) -> Tensor | None:
    """L2 norm over all parameters of an optimizer, as a tensor on their device; None without any gradient.

    Parameters that are sharded over ranks give the norm of the whole.
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if not gradients:
        return None
    norm = torch.nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


class BeforeStep(Callback):
    """Calls `look` with the loss, accumulated as its gradient is, and the norm of the gradient, before clipping and
    the optimizer's step.

    Ranks: all of them compute the norm, which is one exchange where gradients are sharded.

    The norm is computed once a step, however many callbacks look.
    """

    _loss: Tensor | None = None

    def look(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        optimizer: torch.optim.Optimizer,
        loss: Tensor | None,
        norm: Tensor | None,
    ) -> None:
        """What the callback does before a step."""
        raise NotImplementedError

    def on_before_backward(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor
    ) -> None:
        self._loss = loss.detach() if self._loss is None else self._loss + loss.detach()

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        loss, self._loss = self._loss, None
        step = (trainer.global_step, trainer.fit_loop.total_batch_idx)
        if _norms.get(optimizer, (None,))[0] != step:
            _norms[optimizer] = (step, gradient_norm(optimizer))
        self.look(trainer, pl_module, optimizer, loss, _norms[optimizer][1])


class GradientStatistics(BeforeStep):
    """Logs `train/gradient_norm`, unclipped, and `train/clipped_share`, the share of steps so far whose norm
    `trainer.gradient_clip_val` cut.

    Ranks: as `BeforeStep`.

    Costs one norm over the gradients a step, and no wait for the device.
    """

    def __init__(self) -> None:
        self._counts: Tensor | None = None  # steps, of which clipped
        self._restored: list[float] | None = None

    def look(self, trainer: Any, module: Any, optimizer: Any, loss: Tensor | None, norm: Tensor | None) -> None:
        """Counts and logs."""
        if norm is None:
            return
        module.log("train/gradient_norm", norm)
        if trainer.gradient_clip_val:
            if self._counts is None:
                self._counts = torch.tensor(self._restored or [0.0, 0.0], dtype=torch.float64).to(norm.device)
            self._counts += torch.stack([torch.ones_like(norm), (norm > trainer.gradient_clip_val).to(norm.dtype)])
            module.log("train/clipped_share", (self._counts[1] / self._counts[0]).float())

    def state_dict(self) -> dict:
        return {"counts": self._restored if self._counts is None else self._counts.tolist()}

    def load_state_dict(self, state_dict: dict) -> None:
        self._restored = state_dict["counts"]
