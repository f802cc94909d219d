"""What a run is, in three lines before its first step; after a few steps how long it will take."""

import logging
import time
from collections.abc import Callable
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from alignlab.callbacks.keeping.random_states import preserved
from alignlab.callbacks.meters.throughput import num_samples
from alignlab.callbacks.telling.pace import Pace, last_step, said_rate, said_time
from alignlab.cost.available import free_bytes, held_bytes
from alignlab.cost.measured import peak_memory_bytes
from alignlab.cost.memory import ADAMW_STATES, Counts, Memory, training_memory
from alignlab.cost.saved_activations import saved_bytes
from alignlab.models.language.trunk import hidden_states

log = logging.getLogger(__name__)

GB = 1e9


class Introduction(Callback):
    """Logs model, data and device with the memory that training is expected to take; warns if that isn't there.

    Ranks: each counts its own memory; rank zero alone speaks.

    The expectation: what the process holds, gradients and optimizer states by `alignlab.cost.memory`, and the
    activations of a few rows, measured and scaled to the batch. Sharded nets, compiled ones and those with backward
    passes within a step are told without activations.

    Args:
        after_steps: and 5 seconds it says how long the rest will take.
    """

    def __init__(self, after_steps: int = 5) -> None:
        self.after_steps = after_steps
        self._pace: Pace | None = None
        self._first_done: tuple[int, float] | None = None
        self._said = False

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._pace is not None:
            return
        self._pace = Pace()
        self._pace.begin(trainer.global_step, last_step(trainer))
        needed = expected(trainer, pl_module, batch)
        if not trainer.is_global_zero:
            return
        whole = getattr(getattr(pl_module, "whole", None), "num_bytes", 0)
        for line in (model_line(pl_module), data_line(trainer, batch), device_line(trainer, *needed, whole)):
            log.info(line)
        if warning := warning_of(trainer, *needed, whole):
            log.warning(warning)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        pace = self._pace
        if self._said or not trainer.is_global_zero or pace is None:
            return
        pace.done(trainer.global_step)
        self._first_done = self._first_done or (trainer.global_step, time.perf_counter())
        since, when = self._first_done
        if trainer.global_step - since >= self.after_steps and time.perf_counter() - when >= 5 and pace.left:
            self._said = True
            if pace.left > 5:
                log.info(
                    "%s to go at %s; at most %.1f GB so far",
                    *(said_time(pace.left), said_rate(pace.rate or 1.0), peak_memory_bytes() / GB),
                )


def model_line(module: lightning.LightningModule) -> str:
    """The method and its parameters, those of sharded ones whole."""
    size = _counts(module)
    total = size.trainable + size.frozen
    trained = "all trained" if not size.frozen else f"{size.trainable:,} ({size.trainable / total:.2%}) trained"
    method = type(getattr(module, "method", module)).__name__
    return f"model   {method}: {total:,} parameters, {trained}"


def data_line(trainer: lightning.Trainer, batch: Any) -> str:
    """Rows, steps of an epoch, and what a sample costs."""
    data, size = trainer.datamodule, num_samples(batch)
    source = type(getattr(data, "source", None) or data).__name__
    rows = getattr(getattr(trainer.train_dataloader, "dataset", None), "__len__", lambda: None)()
    accumulated, ranks = trainer.accumulate_grad_batches, trainer.world_size
    parts = [f"{size} rows a batch"]
    parts += [f"{accumulated} batches a step"] if accumulated > 1 else []
    parts += [f"{ranks} processes"] if ranks > 1 else []
    batches = trainer.num_training_batches
    epoch = "" if batches == float("inf") else f", {-(-batches // accumulated):,} steps an epoch"
    steps = last_step(trainer)
    epochs = (steps or 0) * accumulated / max(batches, 1)
    epochs = f"{epochs:,.0f}" if epochs >= 10 else f"{epochs:.2g}"
    whole = "" if steps is None else f"; {steps:,} steps are {epochs} epochs"
    shape = f" of {batch.image.shape[-1]} px" if hasattr(batch, "image") else f" of {batch.ids.shape[-1]} tokens"
    return f"data    {source}: {'' if rows is None else f'{rows:,} '}rows{shape}{epoch} ({', '.join(parts)}){whole}"


def device_line(trainer: lightning.Trainer, more: Memory, activations: int | None, whole: int = 0) -> str:
    """Device, precision, expected memory against what is there; `whole`: bytes of weights that are gathered for
    rollouts.
    """
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}"
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    ranks = f" on each of {trainer.world_size} processes" if trainer.world_size > 1 else ""
    peak, there = _peak(device, more, activations), free_bytes(device)
    known = "" if activations is not None else " and activations"
    of = "" if there is None else f" of {(held_bytes(device) + there) / GB:.1f}"
    rollouts = f"; whole weights for rollouts and answers take {whole / GB:.2g} GB meanwhile" if whole else ""
    return (
        f"device  {name}{threads}, {trainer.precision}; about {peak / GB:.1f} GB{of} expected{known}{ranks}{rollouts}"
    )


def warning_of(trainer: lightning.Trainer, more: Memory, activations: int | None, whole: int = 0) -> str | None:
    """What to say of a run that will not fit; None for one that fits, or where nobody knows."""
    device = trainer.strategy.root_device
    there = free_bytes(device)
    if there is None or max(more.total + (activations or 0), more.optimizer + whole) <= there:
        return None
    parts = {"gradients": more.gradients, "optimizer states": more.optimizer, "activations": activations or 0}
    parts |= {"whole weights for rollouts": whole} if whole else {}
    told = ", ".join(f"{name} {size / GB:.1f} GB" for name, size in parts.items())
    helps = "a smaller batch_size or gradient_checkpointing=true" if (activations or 0) > more.total else "an adapter"
    return (
        f"this will not fit: {told} are to come, and {there / GB:.1f} GB are free on {device}; {helps} takes less "
        "(docs/plan.md)"
    )


def expected(trainer: lightning.Trainer, module: lightning.LightningModule, batch: Any) -> tuple[Memory, int | None]:
    """What will be needed besides what is held now: gradients and optimizer states, and activations if they can be
    counted.
    """
    size, ranks = _counts(module), trainer.world_size
    kind = type(trainer.strategy).__name__.lower()
    stage = getattr(trainer.strategy, "stage_3", None)
    strategy = "fsdp" if "parallel" in kind or "fsdp" in kind else "ddp" if ranks > 1 else "none"
    if "deepspeed" in kind:
        strategy = "deepspeed_3" if stage else "deepspeed_2"
    precision = trainer.precision if trainer.precision in ("bf16-mixed", "bf16-true") else "32-true"
    states = 1 if any("Muon" in type(o).__name__ for o in trainer.optimizers) else ADAMW_STATES
    whole = training_memory(size, strategy, ranks, precision, optimizer_states=states)
    held = any(o.state for o in trainer.optimizers)  # of a resumed run
    more = Memory(0, whole.gradients, 0 if held else whole.optimizer, 0)
    if strategy not in ("none", "ddp") or getattr(module, "backward_within", False) or _compiled(module):
        return more, None
    try:
        return more, _activations(trainer, module, batch)
    except Exception as error:  # a guess isn't worth a run
        log.debug("activations can't be counted: %s", error)
        return more, None


def _activations(trainer: lightning.Trainer, module: lightning.LightningModule, batch: Any) -> int | None:
    net = module.net
    if hasattr(batch, "image"):
        rows = len(batch.image)
        few = min(rows, max(2, rows // 8))
        forward: Callable[[], Any] = lambda: module.method(_first(batch, few))  # noqa: E731
    else:
        ids = batch.ids.to(module.device)
        rows, few = len(ids), 1
        if getattr(module, "rolls_out", False):
            rows = module.method.update.micro_batch_size or rows * module.method.group_size
            length = ids.shape[1] + module.method.sampling.max_new_tokens
            ids = ids[:1, :1].expand(1, length)
        model = getattr(net, "model", net) if hasattr(net, "head") or hasattr(net, "scale") else net
        forward = lambda: hidden_states(model, ids[:few])  # noqa: E731
    known = [*module.parameters(), *module.buffers()]
    with preserved(module.device), trainer.precision_plugin.forward_context():
        return saved_bytes(forward, known) * rows // few


def _first(batch: Any, number: int) -> Any:
    """The first rows of whatever lies in a batch of pairs."""
    if isinstance(batch, Tensor):
        return batch[:number]
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_first(part, number) for part in batch))
    return batch


def _counts(module: lightning.LightningModule) -> Counts:
    sizes = [(p.requires_grad, getattr(p, "ds_numel", p.numel())) for p in module.parameters()]
    trained = sum(size for trains, size in sizes if trains)
    return Counts(trained, sum(size for _, size in sizes) - trained, 0)


def _peak(device: torch.device, more: Memory, activations: int | None) -> int:
    return held_bytes(device) + more.total + (activations or 0)


def _compiled(module: lightning.LightningModule) -> bool:
    return any(hasattr(part, "_orig_mod") or getattr(part, "_compiled_call_impl", None) for part in module.modules())
