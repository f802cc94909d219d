"""AdamW with parameter groups, and learning-rate schedules: the `optim` group of a run.

A system calls `optim(self, total_steps=...)` and returns the result from `configure_optimizers`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal, get_args

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from alignlab.optim.parameter_groups import Decay, parameter_groups

Schedule = Literal["cosine", "linear", "constant", "inverse_sqrt", "warmup_stable_decay"]

_FUSED_DEVICES = ("cpu", "cuda", "mps", "xpu")


def adamw(
    module: nn.Module,
    *,
    lr: float,
    total_steps: int,
    weight_decay: float = 0.02,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    warmup_steps: int = 0,
    warmup_lr: float = 0.0,
    min_lr: float = 0.0,
    min_lr_share: float = 0.0,
    schedule: Schedule = "cosine",
    decay: Decay = "matrices",
    layer_decay: float = 1.0,
    lr_multipliers: Mapping[str, float] | None = None,
    decay_fraction: float = 0.2,
    fused: bool | None = None,
) -> dict:
    """Build AdamW (arXiv:1711.05101) and its step-wise schedule in the form Lightning expects.

    min_lr_share: of lr, where min_lr is 0.
    decay, layer_decay, lr_multipliers: as `parameter_groups` has them; schedule, decay_fraction: as `learning_rate`
    has them.
    fused: one kernel for all tensors; None takes it wherever every parameter allows it.
    Raises ValueError for impossible rates, steps or factors.
    """
    if not 0 <= min_lr_share <= 1:
        raise ValueError(f"min_lr_share is {min_lr_share}; it must be 0 to 1")
    factor = learning_rate(
        lr=lr,
        total_steps=total_steps,
        warmup_steps=warmup_steps,
        warmup_lr=warmup_lr,
        min_lr=min_lr or lr * min_lr_share,
        schedule=schedule,
        decay_fraction=decay_fraction,
    )
    groups = parameter_groups(
        module, lr=lr, weight_decay=weight_decay, decay=decay, layer_decay=layer_decay, lr_multipliers=lr_multipliers
    )
    if fused is None:
        fused = all(
            p.is_floating_point() and p.device.type in _FUSED_DEVICES for group in groups for p in group["params"]
        )
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=tuple(betas), eps=eps, fused=fused)
    scheduler = LambdaLR(optimizer, lambda step: factor(step) / lr)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def learning_rate(
    *,
    lr: float,
    total_steps: float,
    warmup_steps: int = 0,
    warmup_lr: float = 0.0,
    min_lr: float = 0.0,
    schedule: Schedule = "cosine",
    decay_fraction: float = 0.2,
) -> Callable[[int], float]:
    """Return the learning rate as a function of the optimizer step: linear warm-up, then a schedule.

    With w warm-up steps of n in all, step s < w has warmup_lr + (lr - warmup_lr)(s + 1)/w; later p = (s - w)/(n - w)
    and
    cosine: min_lr + (lr - min_lr)(1 + cos(pi p))/2; linear: lr + (min_lr - lr) p; constant: lr;
    inverse_sqrt: max(min_lr, lr sqrt(w / (s + 1))), w at least 1 (arXiv:1706.03762, eq. 3), which needs no end;
    warmup_stable_decay: lr, and linearly to min_lr in the last `decay_fraction` of all n steps (arXiv:2404.06395, sec.
    4).
    """
    _check_rates(lr, warmup_lr, min_lr, warmup_steps)
    if schedule not in get_args(Schedule):
        raise ValueError(f"schedule={schedule} is none of {', '.join(get_args(Schedule))}")
    if schedule not in ("constant", "inverse_sqrt") and not math.isfinite(total_steps):
        raise ValueError(f"schedule={schedule} needs an end: set the trainer's max_steps or max_epochs")
    if not 0 < decay_fraction <= 1:
        raise ValueError(f"decay_fraction={decay_fraction} must be above 0 and at most 1")

    def share(step: int) -> float:
        """Of the way from min_lr up to lr."""
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        if schedule == "cosine":
            return (1 + math.cos(math.pi * progress)) / 2
        if schedule == "linear":
            return 1 - progress
        return min(1.0, max(0.0, (total_steps - step) / max(1.0, decay_fraction * total_steps)))

    def rate(step: int) -> float:
        if step < warmup_steps:
            return warmup_lr + (lr - warmup_lr) * (step + 1) / warmup_steps
        if schedule == "constant":
            return lr
        if schedule == "inverse_sqrt":
            return max(min_lr, lr * math.sqrt(max(1, warmup_steps) / (step + 1)))
        return min_lr + (lr - min_lr) * share(step)

    return rate


def _check_rates(lr: float, warmup_lr: float, min_lr: float, warmup_steps: int) -> None:
    if lr <= 0 or not 0 <= min_lr <= lr or not 0 <= warmup_lr <= lr:
        raise ValueError(f"lr={lr} must be positive, min_lr={min_lr} and warmup_lr={warmup_lr} between 0 and lr")
    if warmup_steps < 0:
        raise ValueError(f"warmup_steps={warmup_steps} must not be negative")
