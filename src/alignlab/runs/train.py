"""Runs of training: from a composed config to a run directory, and back to a model."""

import json
import logging
import math
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import lightning
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from alignlab.callbacks.keeping.changed_settings import ChangedSettings
from alignlab.callbacks.keeping.checkpoint import Checkpoints, ConfigInCheckpoint
from alignlab.callbacks.keeping.checkpoint_folder import newest_readable
from alignlab.callbacks.keeping.interruption import Interruption
from alignlab.callbacks.keeping.rank_death import RankDeath
from alignlab.callbacks.keeping.seeding import SeedPerRank
from alignlab.callbacks.keeping.spike_guard import SpikeGuard
from alignlab.callbacks.meters.metrics_csv import MetricsCsv
from alignlab.callbacks.meters.throughput import Throughput
from alignlab.cost.measured import Clock, peak_memory_bytes
from alignlab.files.result import Result
from alignlab.files.weights import load_into, read_file, weights_of
from alignlab.files.writing import write_folder, write_text
from alignlab.launch import disk, run_lock, stranded
from alignlab.launch.rank_watch import RankDied
from alignlab.launch.signals import UNHEARD, Inbox, Interrupted
from alignlab.runs import resuming
from alignlab.runs.record import git_revision, show, versions
from alignlab.systems.choosing import system_of
from alignlab.systems.diverged import Diverged

log = logging.getLogger(__name__)

# Warnings about choices that were made on purpose.
NOISE = (
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
        ValueError: the data, the system, the trainer or the checkpoint can't be what the config asks for, or the directory is in use.
        Interrupted: a signal asked for the end.
        DiskFull, RankDied: what their names say.
    """
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    result = Result(seed=cfg.seed, git_revision=git_revision(), versions=versions())
    unheard = partial(_unheard, result=result, run_dir=run_dir)
    with _alone(run_dir), Inbox(_say, unheard) as inbox, ExitStack() as recorded, _recorded(result, run_dir):
        changed = _changed(cfg, result)
        _prepare(cfg, run_dir)
        datamodule, system = build(cfg, None if cfg.resume is None else Path(cfg.resume))
        ranks = RankDeath(lambda cause: _last_words(cause, result, trainer.global_step, run_dir))
        recorded.callback(ranks.leave)
        trainer = build_trainer(cfg, run_dir, [Interruption(inbox), ranks, *changed])
        ranks.attach(trainer)
        checkpoint = _checkpoint(cfg, system, trainer, result)
        _save_tokenizer(datamodule, run_dir / "tokenizer")
        with ranks.together():
            try:
                trainer.fit(system, datamodule=datamodule, ckpt_path=checkpoint)
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


def build(
    cfg: DictConfig, trained_in: Path | None = None
) -> tuple[lightning.LightningDataModule, lightning.LightningModule]:
    """The data module, set up, and the system that fits it; a run directory that weights come from gives the tokenizer that it trained."""
    datamodule = instantiate(cfg.data, _convert_="all")
    if trained_in is not None and hasattr(datamodule, "reuse_tokenizer"):
        datamodule.reuse_tokenizer(trained_in / "tokenizer")
    datamodule.prepare_data()
    datamodule.setup("fit")
    optim = instantiate(cfg.optim, _convert_="all")
    model = instantiate(cfg.model, _partial_=True, _convert_="all")
    return datamodule, system_of(model, vocabulary=datamodule.vocabulary, optim=optim)


def build_trainer(cfg: DictConfig, run_dir: Path, more: Sequence[lightning.pytorch.Callback] = ()) -> lightning.Trainer:
    """The trainer with its callbacks, `more` of them besides the config's, and loggers, writing to the run directory."""
    callbacks = [instantiate(entry, _convert_="all") for entry in (cfg.callbacks or {}).values() if entry is not None]
    callbacks.sort(
        key=lambda callback: not isinstance(callback, SpikeGuard)
    )  # takes steps back before others count them
    callbacks += [SeedPerRank(cfg.seed), ConfigInCheckpoint(OmegaConf.to_container(cfg, resolve=True)), *more]
    loggers = [
        instantiate(entry, save_dir=str(run_dir), _convert_="all")
        for entry in (cfg.logger or {}).values()
        if entry is not None
    ]
    if str(cfg.trainer.get("precision")) in ("16-true", "transformer-engine-float16"):
        raise ValueError(
            f"trainer.precision={cfg.trainer.precision} can't train: in float16 Adam's eps and the squares of small gradients are 0;"
            " take bf16-true, bf16-mixed or 16-mixed"
        )
    trainer = instantiate(cfg.trainer, _partial_=True, _convert_="all")
    return trainer(callbacks=callbacks, logger=loggers, default_root_dir=str(run_dir))


def load_system(run_dir: str | Path) -> tuple[lightning.LightningModule, lightning.LightningDataModule]:
    """The trained system of a run directory, in eval mode on the CPU, and its data module, set up.

    The weights are those of checkpoints/best.ckpt, or of last.ckpt where there is no best one.

    Raises:
        ValueError: no run directory, or one without a checkpoint.
    """
    run_dir = Path(run_dir)
    found = [file for name in ("best", "last") if (file := run_dir / "checkpoints" / f"{name}.ckpt").exists()]
    if not found or not (run_dir / "config.yaml").exists():
        raise ValueError(f"{run_dir} is no run directory with a checkpoint (config.yaml, checkpoints/last.ckpt)")
    datamodule, system = build(OmegaConf.load(run_dir / "config.yaml"), run_dir)
    system.configure_model()
    load_into(
        system, weights_of(read_file(found[0], "run directory"), found[0], "run directory"), found[0], "run directory"
    )
    return system.eval(), datamodule


def _save_tokenizer(datamodule: lightning.LightningDataModule, folder: Path) -> None:
    """Writes the tokenizer to the run directory, unless it comes from there: another rank may be reading it."""
    tokenizer = getattr(datamodule, "tokenizer", None)
    if rank_zero_only.rank == 0 and tokenizer is not None:
        if Path(getattr(tokenizer, "name_or_path", "")).resolve() != folder.resolve():
            write_folder(folder, tokenizer.save_pretrained)


def _prepare(cfg: DictConfig, run_dir: Path) -> None:
    """Seeds everything, quiets what isn't the user's business, writes the resolved config."""
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING if rank_zero_only.rank == 0 else logging.ERROR)
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    if rank_zero_only.rank == 0:
        (run_dir / "result.json").unlink(missing_ok=True)  # of the run that is resumed
        log.info("run directory %s, seed %d", run_dir, cfg.seed)
        write_text(run_dir / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))


def _changed(cfg: DictConfig, result: Result) -> list[lightning.pytorch.Callback]:
    """What makes a resumed run obey changed settings, which are noted."""
    if cfg.resume is None:
        return []
    saved = resuming.saved_config(cfg.resume)
    result.notes += [f"resume: {line}" for line in resuming.noted(saved, cfg)]
    for note in result.notes:
        log.info(note)
    keys = [] if saved is None else list(resuming.changes(saved, cfg))
    return [ChangedSettings(keys, cfg.data.get("batch_size"))]


def _checkpoint(
    cfg: DictConfig, system: lightning.LightningModule, trainer: lightning.Trainer, result: Result
) -> Path | None:
    """The checkpoint that the trainer restores; bare weights are loaded here and leave it nothing to restore."""
    if cfg.resume is None and cfg.ckpt_path is None:
        return None
    if cfg.resume is not None:
        file = _resumed(Path(cfg.resume), trainer, result)
        if file is not None or cfg.ckpt_path is None:  # else the run begins anew from where it began
            return file
    file = Path(cfg.ckpt_path)
    if not file.exists():
        raise ValueError(f"ckpt_path: there is no checkpoint {file}")
    if file.is_dir():  # of a sharding strategy
        return file
    content = read_file(file, "ckpt_path")
    weights = weights_of(content, file, "ckpt_path")
    system.configure_model()
    before = {name: value.shape for name, value in system.state_dict().items()}
    load_into(system, weights, file, "ckpt_path")
    if not (
        isinstance(content.get("config"), dict) and content.get("optimizer_states")
    ):  # none of ours, or weights alone
        return None
    saved, target = content["config"].get("optim", {}).get("_target_"), cfg.optim.get("_target_")
    other = [name for name, value in weights.items() if name in before and value.shape != before[name]]
    why = f"{', '.join(other)} had another shape" if other else f"it was {saved}" if saved != target else None
    if why is None:
        return file
    result.notes.append(f"ckpt_path: the weights of {file} alone are taken, the optimizer begins anew: {why}")
    log.warning(result.notes[-1])
    return None


def _resumed(run_dir: Path, trainer: lightning.Trainer, result: Result) -> Path | None:
    """The newest readable checkpoint of a run directory; without any, the run begins anew. What isn't as hoped is noted."""
    file, complaints = newest_readable(run_dir / "checkpoints")
    if file is None:
        complaints = ["no checkpoint yet"]
    if complaints:
        result.notes.append(f"resume: {'; '.join(complaints)}: going on from {file.name if file else 'the beginning'}")
        log.warning(result.notes[-1])
        for logger in trainer.loggers:
            if file is None and isinstance(logger, MetricsCsv):
                logger.forget_after(0)
    return file


def _measure(result: Result, trainer: lightning.Trainer, objective: str | None) -> None:
    """Fills in what the trainer knows; a training loss that isn't finite any more means that the run diverged.

    Raises:
        ValueError: the objective was never logged.
    """
    checkpoints = next((c for c in trainer.callbacks if isinstance(c, Checkpoints)), None)
    before = checkpoints.metrics_before if checkpoints else {}
    result.metrics = before | {name: float(value) for name, value in trainer.callback_metrics.items()}
    result.steps, result.world_size = trainer.global_step, trainer.world_size
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


@contextmanager
def _recorded(result: Result, run_dir: Path) -> Iterator[None]:
    """Writes result.json on rank zero, and on any rank that fails first; a failure's traceback goes to train.log."""
    clock = Clock()
    error: BaseException | None = None
    try:
        if rank_zero_only.rank == 0:
            disk.keep_room(run_dir)
        yield
    except (KeyboardInterrupt, Interrupted) as stop:
        by = stop.name if isinstance(stop, Interrupted) else "Ctrl-C"
        error, result.status, result.reason = stop, "interrupted", f"{by} at step {result.steps}"
    except (Exception, SystemExit) as failure:
        disk.give_room(run_dir)
        error = _with_what_it_said(disk.explained(_cause(failure), run_dir), run_dir)
        result.status, result.reason = "failed", f"{type(error).__name__}: {error}"
        with suppress(OSError), (run_dir / "train.log").open("a", encoding="utf-8") as file:
            file.write("".join(traceback.format_exception(failure)))
    disk.give_room(run_dir)
    result.seconds, result.peak_memory_bytes = clock.seconds(), peak_memory_bytes()
    if (rank_zero_only.rank == 0 or isinstance(error, Exception)) and not _failed_before(run_dir, result):
        with suppress(OSError) if error is not None else ExitStack():
            result.write(run_dir)
    if error is not None:
        raise error


@contextmanager
def _alone(run_dir: Path) -> Iterator[None]:
    """Keeps other runs out of the directory; further ranks belong to the run that has it."""
    with run_lock.held(run_dir) if rank_zero_only.rank == 0 else ExitStack():
        yield


def _last_words(cause: RankDied, result: Result, steps: int, run_dir: Path) -> None:
    """For a rank that waits for one that has gone, possibly for ever: says why and ends the process, from another thread."""
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


def _with_what_it_said(error: BaseException, run_dir: Path) -> BaseException:
    """A rank's death with the reason that it has written itself, if it has."""
    with suppress(OSError, ValueError):
        if isinstance(error, RankDied):
            return RankDied(f"{error}. It said: {json.loads((run_dir / 'result.json').read_text())['reason']}")
    return error


def _failed_before(run_dir: Path, result: Result) -> bool:
    """Whether another rank has already said why: what this one saw is then only the broken connection."""
    return result.status == "failed" and (run_dir / "result.json").exists()


def _cause(failure: BaseException) -> BaseException:
    """The user's error inside what Hydra and Lightning wrap around it, as a ValueError."""
    if isinstance(failure, InstantiationException) and failure.__cause__ is not None:
        where = str(failure).rpartition("full_key: ")[2].strip() if "full_key: " in str(failure) else ""
        inner = _cause(failure.__cause__)
        return type(inner)(f"{where}: {inner}") if where and type(inner) is ValueError else inner
    if isinstance(failure, SystemExit):
        frames = traceback.extract_tb(failure.__traceback__)
        where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "something"
        return ValueError(
            f"{where} ended the program amid the run (SystemExit: {failure.code}); raise an error instead"
        )
    return ValueError(str(failure)) if isinstance(failure, MisconfigurationException) else failure
