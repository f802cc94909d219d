"""Which checkpoint a run begins from: the newest readable one of the run it resumes, another's with its optimizer, or
bare weights.
"""

import logging
from pathlib import Path

import lightning
from omegaconf import DictConfig

from alignlab.callbacks.keeping.checkpoint_folder import index_is_lost, newest_readable
from alignlab.callbacks.meters.metrics_csv import MetricsCsv
from alignlab.files.result import Result
from alignlab.files.weights import load_into, read_file, weights_of
from alignlab.runs.init_from import start_from
from alignlab.runs.resuming import earlier

log = logging.getLogger(__name__)


def checkpoint(
    cfg: DictConfig, system: lightning.LightningModule, trainer: lightning.Trainer, result: Result
) -> Path | None:
    """The checkpoint that the trainer restores; bare weights are loaded here and leave it nothing to restore."""
    for logger in trainer.loggers:
        if isinstance(logger, MetricsCsv):
            result.notes += [f"resume: {note}" for note in logger.notes]
    if cfg.resume is not None:
        file = _resumed(Path(cfg.resume), trainer, result)
        if file is not None:  # else the run begins anew from where it began
            return file
    for logger in trainer.loggers:  # of a life before that came to no checkpoint
        if isinstance(logger, MetricsCsv):
            logger.forget_after(0)
    if cfg.get("init_from") is not None:
        if cfg.ckpt_path is not None:
            raise ValueError("init_from and ckpt_path both say where weights come from; take one of them")
        notes = start_from(cfg.init_from, system, same_words=cfg.data.get("tokenizer") is None)
        result.notes += notes
        for note in notes:
            log.info(note)
    if cfg.ckpt_path is None:
        return None
    file = Path(cfg.ckpt_path)
    if not file.exists():
        raise ValueError(f"ckpt_path: there is no checkpoint {file}")
    if file.is_dir():  # of a sharding strategy
        return file
    content = read_file(file, "ckpt_path")
    if isinstance(content.get("config"), dict) and (problem := earlier(content["config"], file)):
        raise ValueError(f"ckpt_path: {problem}")
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
    """The newest readable checkpoint of a run directory; without any, the run begins anew. What was wrong with others
    is noted.
    """
    if not (run_dir / "metrics.csv").exists() and any(isinstance(logger, MetricsCsv) for logger in trainer.loggers):
        result.notes.append("resume: there is no metrics.csv; it begins again")
    if index_is_lost(run_dir / "checkpoints"):
        result.notes.append("resume: index.json can't be read; what it said is taken from the checkpoints")
    file, complaints = newest_readable(run_dir / "checkpoints")
    if file is None:
        complaints = ["no checkpoint yet"]
    if complaints:
        result.notes.append(f"resume: {'; '.join(complaints)}: going on from {file.name if file else 'the beginning'}")
        log.warning(result.notes[-1])
    return file
