"""A run of training: from a checked config to a run directory."""

import logging
import math
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import lightning
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from alignlab.callbacks.keeping.changed_settings import ChangedSettings
from alignlab.callbacks.keeping.checkpoint import Checkpoints
from alignlab.callbacks.keeping.interruption import Interruption
from alignlab.callbacks.keeping.rank_death import RankDeath
from alignlab.callbacks.meters.throughput import Throughput
from alignlab.callbacks.telling.publishing import Publishing
from alignlab.callbacks.telling.rate_warning import RateWarning
from alignlab.configs.command_line import without_force
from alignlab.configs.filling import filled
from alignlab.configs.starting import started_from
from alignlab.distributed.machine import cores
from alignlab.files.aside import set_aside
from alignlab.files.leaves import leaves
from alignlab.files.result import Result
from alignlab.files.runs import newest_run
from alignlab.files.writing import write_text
from alignlab.launch import collector, disk, open_files, run_lock, stranded
from alignlab.launch.admission import refuse_if_taken
from alignlab.launch.rank_watch import RankDied
from alignlab.launch.signals import UNHEARD, Inbox, Interrupted
from alignlab.runs import resuming
from alignlab.runs.building import build, build_trainer, save_tokenizer
from alignlab.runs.own_source import from_own_source, is_gone
from alignlab.runs.record import git_revision, recorded, show, versions
from alignlab.runs.starting_point import checkpoint
from alignlab.systems.diverged import Diverged

log = logging.getLogger(__name__)

# Warnings about choices that were made on purpose.
NOISE = (
    r"`is_gradient_checkpointing` is deprecated.*",  # PEFT asks transformers
    r"The number of training batches .* is smaller than the logging interval.*",  # steps are counted over epochs
    r"Found .* module\(s\) in eval mode.*",  # policies under reinforcement learning have no dropout
    r".*isinstance\(treespec, LeafSpec\).*",
    r"Checkpoint directory .* exists and is not empty.*",  # a resumed run
    r"`broadcast_buffers` is deprecated.*",  # its successor is unknown to older torch
    r"The '.*_dataloader' does not have many workers.*",
    r"It is recommended to use `self.log\(.*sync_dist=True.*",  # systems reduce over ranks themselves
)


def train(cfg: DictConfig) -> Result:
    """Trains what a checked config composes and leaves a run directory with result.json, whatever happens.

    Raises:
        ValueError: the data, the system, the trainer or the checkpoint can't be what the config asks for, or the
            directory is in use.
        Interrupted: a signal asked for the end.
        DiskFull, RankDied: what their names say.
    """
    cfg, run_dir = filled(cfg), Path(HydraConfig.get().runtime.output_dir)
    result = Result(seed=cfg.seed, git_revision=git_revision(), versions=versions())
    unheard = partial(_unheard, result=result, run_dir=run_dir)
    record = recorded(result, run_dir, cfg, rank=lambda: rank_zero_only.rank)
    with _alone(run_dir, cfg.resume), Inbox(_say, unheard) as inbox, ExitStack() as written, record:
        workers = cfg.data.get("num_workers")
        open_files.provide(cores() if workers is None else workers)
        changed = _changed(cfg, result)
        _prepare(cfg, run_dir)
        if cfg.resume is not None and is_gone(cfg):
            cfg = from_own_source(cfg, Path(cfg.resume))
        trained_in = cfg.resume or cfg.get("init_from")
        with collector.resting():
            weights = None if trained_in is None else newest_run(trained_in, holding="checkpoints")
            datamodule, system = build(cfg, weights)
        ranks = RankDeath(lambda cause: _last_words(cause, result, trainer.global_step, run_dir))
        written.callback(ranks.leave)
        trainer = build_trainer(cfg, run_dir, [Interruption(inbox), ranks, *_telling(cfg, result), *changed])
        ranks.attach(trainer)
        start = checkpoint(cfg, system, trainer, result)
        save_tokenizer(datamodule, run_dir / "tokenizer")
        with ranks.together():
            try:
                trainer.fit(system, datamodule=datamodule, ckpt_path=start)
            except SystemExit as stop:
                if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning's answer to it
                    raise KeyboardInterrupt from stop
                raise
            except Diverged as end:
                result.status, result.reason = "diverged", str(end)
            finally:
                _measure(result, trainer, cfg.objective)
    if rank_zero_only.rank == 0:
        show(result, run_dir)
    return result


def _prepare(cfg: DictConfig, run_dir: Path) -> None:
    """Seeds everything, quiets what isn't the user's business, writes the resolved config."""
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING if rank_zero_only.rank == 0 else logging.ERROR)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # of kernels that no adapter here asks for
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    if rank_zero_only.rank == 0:
        (run_dir / "result.json").unlink(missing_ok=True)  # of the run that is resumed
        if (samples := run_dir / "samples").exists() and not samples.is_dir():
            set_aside(samples)
        log.info("run directory %s, seed %d", run_dir, cfg.seed)
        write_text(run_dir / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True), durable=True)


def _changed(cfg: DictConfig, result: Result) -> list[lightning.pytorch.Callback]:
    """What makes a resumed run obey changed settings, which are noted."""
    if cfg.resume is None:
        return []
    saved = filled(resuming.saved_config(cfg.resume, resuming.trusted_by(cfg)))
    result.notes += [f"resume: {line}" for line in resuming.noted(saved, cfg)]
    for note in result.notes:
        log.info(note)
    return [ChangedSettings(list(resuming.changes(saved, cfg)), cfg.data.get("batch_size"))]


def _telling(cfg: DictConfig, result: Result) -> list[lightning.pytorch.Callback]:
    """What warns of a rate, and gives loggers config, revision and command."""
    settings = dict(leaves(OmegaConf.to_container(cfg, resolve=True)))
    command = " ".join(["python train.py", *without_force(HydraConfig.get().overrides.task)])
    about = {"git_revision": str(result.git_revision), "command": command}
    return [RateWarning(started_from(cfg)), Publishing(settings, about)]


def _measure(result: Result, trainer: lightning.Trainer, objective: str | None) -> None:
    """Fills in what the trainer knows; a training loss that isn't finite any more means that the run diverged.

    Raises:
        ValueError: the objective was never logged.
    """
    checkpoints = next((c for c in trainer.callbacks if isinstance(c, Checkpoints)), None)
    before = checkpoints.metrics_before if checkpoints else {}
    result.metrics = before | {name: float(value) for name, value in trainer.callback_metrics.items()}
    result.steps, result.world_size = trainer.global_step, trainer.world_size
    result.parameters = _parameters(trainer.lightning_module)
    result.samples_per_second = next(
        (c.samples_per_second for c in trainer.callbacks if isinstance(c, Throughput)), None
    )
    if result.status == "diverged":
        result.objective = math.nan
    elif trainer.state.finished:
        result.status = "ok"
        loss = result.metrics.get("train/loss", 0.0)
        if not math.isfinite(loss):
            result.status, result.reason = "diverged", f"train/loss is {loss} at step {result.steps}"
            result.objective = math.nan
            return
        if objective is not None and objective not in result.metrics:
            raise ValueError(f"objective={objective} was never logged; there are {', '.join(sorted(result.metrics))}")
        result.objective = result.metrics[objective] if objective is not None else None


def _parameters(module: lightning.LightningModule | None) -> int | None:
    """Those of the net, without a method's twin of it; of sharded ones whole."""
    net = getattr(module, "net", module)
    return sum(getattr(p, "ds_numel", p.numel()) for p in net.parameters()) or None if net is not None else None


@contextmanager
def _alone(run_dir: Path, resume: str | None) -> Iterator[None]:
    """Keeps other runs out of the directory, and this one out of another's; further ranks belong to the run that has
    it.
    """
    with run_lock.held(run_dir) if rank_zero_only.rank == 0 else ExitStack():
        if rank_zero_only.rank == 0:
            refuse_if_taken(run_dir, resume)
        yield


def _last_words(cause: RankDied, result: Result, steps: int, run_dir: Path) -> None:
    """For a rank that waits for one that has gone, possibly for ever: says why and ends the process, from another
    thread.
    """
    result.status, result.reason = "failed", f"{type(cause).__name__}: {cause}"
    _end_now(result, steps, run_dir, f"error: {cause}", code=1)


def _unheard(number: int, result: Result, run_dir: Path) -> None:
    """For a signal that the main thread doesn't hear, deep in a call that doesn't end: as `_last_words`."""
    signalled = Interrupted(number)
    result.status, result.reason = "interrupted", f"{signalled.name}, unheard for {UNHEARD:.0f} s at {stranded.place()}"
    _end_now(result, result.steps, run_dir, f"{result.reason}: ending without a checkpoint", signalled.exit_code)


def _end_now(result: Result, steps: int, run_dir: Path, message: str, code: int) -> None:
    result.steps = steps
    disk.give_room(run_dir)
    with suppress(OSError):
        if rank_zero_only.rank == 0 or not (run_dir / "result.json").exists():
            result.write(run_dir)
        print(message, file=sys.stderr, flush=True)
    os._exit(code)


def _say(message: str) -> None:
    if rank_zero_only.rank == 0:
        print(message, file=sys.stderr, flush=True)
