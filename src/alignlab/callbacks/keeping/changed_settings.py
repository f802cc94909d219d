"""Makes a resumed run obey settings that its checkpoint holds otherwise: the optimizer's numbers, and where batches of
another size go on.
"""

from collections.abc import Collection
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback


class ChangedSettings(Callback):
    """Part of every resumed run.

    Ranks: each for itself, no exchange.

    Args:
        keys: dotted keys of what has been changed.
        batch_size: of one process, now.
    """

    def __init__(self, keys: Collection[str], batch_size: int | None) -> None:
        self.optim = any(key.startswith("optim.") for key in keys)
        self.batch_size = batch_size

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Counts the epoch's batches anew where they are of another size, or steps are of other numbers of them.

        The run goes on with the last batch that begins a step at or before the old place: rows may come again, none is
        left out.
        """
        fit = checkpoint.get("loops", {}).get("fit_loop", {})
        states = fit.get("state_dict", {}).get("combined_loader") or []
        if len(states) != 1 or self.batch_size is None or "joint" not in states[0]:
            return
        state, joint = states[0], self.batch_size * trainer.world_size
        steps = state["batch"] * state["joint"] // joint // trainer.accumulate_grad_batches
        batch = steps * trainer.accumulate_grad_batches
        if (batch, joint) == (state["batch"], state["joint"]):
            return
        states[0] = {**state, "batch": batch, "joint": joint}
        current = fit["epoch_loop.batch_progress"]["current"]
        current.update(dict.fromkeys(("ready", "started", "processed", "completed"), batch))

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Gives the optimizer's groups the numbers of the config in place of the checkpoint's; its moments stay."""
        if not self.optim:
            return
        made = pl_module.configure_optimizers()
        for fresh, optimizer in zip(
            made if isinstance(made, list | tuple) else [made], trainer.optimizers, strict=True
        ):
            _take_over(fresh["optimizer"], optimizer)
            if "lr_scheduler" in fresh:
                base = fresh["lr_scheduler"]["scheduler"].base_lrs
                for config in trainer.lr_scheduler_configs:
                    if len(config.scheduler.base_lrs) == len(base):
                        _rates(config.scheduler, base)


def _take_over(fresh: torch.optim.Optimizer, optimizer: torch.optim.Optimizer) -> None:
    if len(fresh.param_groups) != len(optimizer.param_groups):
        raise ValueError("optim: the checkpoint's optimizer has other parameter groups; start a new run with ckpt_path")
    for new, group in zip(fresh.param_groups, optimizer.param_groups, strict=True):
        group.update({key: value for key, value in new.items() if key not in ("params", "lr") and key in group})


def _rates(scheduler: Any, base: list[float]) -> None:
    """The present rates of a schedule with other peaks."""
    scheduler.base_lrs = list(base)
    factors = [factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas]
    scheduler._last_lr = [rate * factor for rate, factor in zip(base, factors, strict=True)]
    for group, rate in zip(scheduler.optimizer.param_groups, scheduler._last_lr, strict=True):
        group["lr"] = rate
