"""AdamW with parameter groups, and learning-rate schedules: the `optim` group of a run.

A system calls `optim(self, total_steps=...)` and returns the result from `configure_optimizers`.
"""

import math
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

Schedule = Literal["cosine", "linear", "constant"]
Decay = Literal["matrices", "reference"]

_TOKENS = ("cls_token", "reg_token", "mask_token", "pos_embed", "temperature", "bias")
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
    schedule: Schedule = "cosine",
    decay: Decay = "matrices",
    layer_decay: float = 1.0,
    fused: bool | None = None,
) -> dict:
    """Build AdamW (arXiv:1711.05101) and its step-wise schedule in the form Lightning expects.

    decay: "matrices" decays weights of linear and convolution layers only; "reference" follows ALBEF's released code, which
    exempts 1-d tensors and biases alone and so decays embeddings, class tokens, positions and the temperature.
    layer_decay: factor on the learning rate per layer counted from the top of each tower (arXiv:2106.08254); 1.0 switches it off.
    fused: one kernel for all tensors; None takes it wherever every parameter allows it.
    Raises ValueError for impossible rates, steps or factors.
    """
    factor = learning_rate(
        lr=lr, total_steps=total_steps, warmup_steps=warmup_steps, warmup_lr=warmup_lr, min_lr=min_lr, schedule=schedule
    )
    if weight_decay < 0:
        raise ValueError(f"optim.weight_decay={weight_decay} must not be negative")
    if not 0 < layer_decay <= 1:
        raise ValueError(f"optim.layer_decay={layer_decay} must be above 0 and at most 1")
    groups = parameter_groups(module, lr=lr, weight_decay=weight_decay, decay=decay, layer_decay=layer_decay)
    if not groups:
        raise ValueError("nothing to optimise: every parameter is frozen")
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
) -> Callable[[int], float]:
    """Return the learning rate as a function of the optimizer step: linear warm-up, then cosine, linear or constant.

    With w warm-up steps of n in all, step s < w has warmup_lr + (lr - warmup_lr)(s + 1)/w; later p = (s - w)/(n - w) and
    cosine: min_lr + (lr - min_lr)(1 + cos(pi p))/2, linear: lr + (min_lr - lr) p.
    """
    if lr <= 0 or not 0 <= min_lr <= lr or not 0 <= warmup_lr <= lr:
        raise ValueError(
            f"optim.lr={lr} must be positive, optim.min_lr={min_lr} and optim.warmup_lr={warmup_lr} between 0 and optim.lr"
        )
    if warmup_steps < 0:
        raise ValueError(f"optim.warmup_steps={warmup_steps} must not be negative")
    if schedule not in ("cosine", "linear", "constant"):
        raise ValueError(f"optim.schedule={schedule} is none of cosine, linear, constant")
    if schedule != "constant" and not math.isfinite(total_steps):
        raise ValueError(f"optim.schedule={schedule} needs an end: set trainer.max_steps or trainer.max_epochs")

    def rate(step: int) -> float:
        if step < warmup_steps:
            return warmup_lr + (lr - warmup_lr) * (step + 1) / warmup_steps
        if schedule == "constant":
            return lr
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        shape = (1 + math.cos(math.pi * progress)) / 2 if schedule == "cosine" else 1 - progress
        return min_lr + (lr - min_lr) * shape

    return rate


def parameter_groups(
    module: nn.Module, *, lr: float, weight_decay: float, decay: Decay = "matrices", layer_decay: float = 1.0
) -> list[dict]:
    """Sort the trainable parameters into groups of equal learning rate and decay, in a stable order."""
    if decay not in ("matrices", "reference"):
        raise ValueError(f"optim.decay={decay} is none of matrices, reference")
    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    scales = layer_scales(module, layer_decay) if layer_decay < 1 else {}
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        leaf = name.rpartition(".")[2]
        if decay == "reference":
            # the reference's temperature is 0-d, hence decayed; ours has shape (1,) for the sake of sharding
            decayed = leaf == "temperature" or (parameter.ndim > 1 and leaf != "bias")
        else:
            decayed = parameter.ndim > 1 and not leaf.endswith(_TOKENS) and id(parameter) not in embeddings
        key = (scales.get(name, 1.0), weight_decay if decayed else 0.0)
        groups.setdefault(key, []).append(parameter)
    return [{"params": params, "lr": lr * scale, "weight_decay": wd} for (scale, wd), params in groups.items()]


def layer_scales(module: nn.Module, layer_decay: float) -> dict[str, float]:
    """Give layer i of L in a `blocks` list the factor layer_decay**(L - i), what lies below its tower's first layer ** (L + 1), the rest 1."""
    scales: dict[str, float] = {}
    for prefix, depth in _towers(module):
        for name, _ in module.named_parameters():
            if not name.startswith(prefix):
                continue
            inside = name[len(prefix) :]
            if inside.startswith("blocks."):
                scales[name] = layer_decay ** (depth - int(inside.split(".")[1]))
            elif inside.startswith(
                ("cls_token", "reg_token", "pos_embed", "patch_embed", "norm_pre", "token_embedding")
            ):
                scales[name] = layer_decay ** (depth + 1)
    return scales


def _towers(module: nn.Module) -> Iterator[tuple[str, int]]:
    for name, child in module.named_modules():
        if name.rpartition(".")[2] == "blocks" and isinstance(child, nn.Sequential | nn.ModuleList):
            yield name[: -len("blocks")], len(child)
