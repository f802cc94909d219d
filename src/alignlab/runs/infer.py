"""Runs of inference: from a composed config to a run directory with predictions.jsonl and result.json."""

import logging
from contextlib import ExitStack
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from alignlab.configs.filling import filled
from alignlab.configs.roots import InferenceRoot
from alignlab.cost.measured import Clock
from alignlab.files.result import Result
from alignlab.files.runs import newest_run
from alignlab.files.writing import write_text
from alignlab.launch import run_lock
from alignlab.launch.admission import refuse_if_taken
from alignlab.launch.processes import this_program
from alignlab.launch.signals import Inbox
from alignlab.launch.sweep import quoted
from alignlab.runs.inference.opening import instantiated, subject_of
from alignlab.runs.record import git_revision, recorded, show, versions
from alignlab.tasks.job import Job, Task
from alignlab.tasks.predictions import Predictions

log = logging.getLogger(__name__)
# Root keys that a program which this run starts gets too.
_PASSED = ("model_path", "adapter", "dtype", "seed")


def infer(cfg: DictConfig) -> Result:
    """Does what a checked config composes and leaves a run directory, whatever happens.

    Raises:
        ValueError: the model, the backend or the input can't be what the config asks for.
    """
    cfg, run_dir = filled(cfg, InferenceRoot), Path(HydraConfig.get().runtime.output_dir)
    result = Result(seed=cfg.seed, git_revision=git_revision(), versions=versions())
    torch.manual_seed(cfg.seed)
    if OmegaConf.is_missing(cfg, "model_path"):  # of a program that doesn't come through the door
        cfg.model_path = None
    if cfg.model_path is not None and (run := newest_run(cfg.model_path)) != Path(cfg.model_path).expanduser():
        cfg.model_path = str(run)  # as the record has it, so that a resumed run asks the same model
    with run_lock.held(run_dir), ExitStack() as recording:
        refuse_if_taken(run_dir, cfg.resume, "inference")  # first: nothing of another run is touched
        predictions = Predictions(run_dir, resumed=cfg.resume is not None)
        result.notes += predictions.notes
        recording.enter_context(Inbox())
        recording.enter_context(recorded(result, run_dir, cfg, log="infer.log", unit="item"))
        for note in result.notes:
            log.warning(note)
        for name in ("transformers", "httpx", "huggingface_hub", "torchao", "bitsandbytes", "torch.utils._pytree"):
            logging.getLogger(name).setLevel(logging.ERROR)  # what they report doesn't concern the user
        task: Task = instantiated(cfg, "task")
        job, before = _job(cfg, run_dir, predictions), len(predictions.rows)
        write_text(run_dir / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True), durable=True)
        clock = Clock()
        try:
            with subject_of(cfg, task) as subject:
                result.metrics = task.run(subject, job)
        finally:
            result.steps = predictions.settle()
        result.samples_per_second = (result.steps - before) / max(clock.seconds(), 1e-9)
        result.objective = next(iter(result.metrics.values()), None)
        result.status = "ok"
    show(result, run_dir, log="infer.log", unit="items")
    if result.metrics.get("failed"):
        count = round(result.metrics["failed"])
        whose = "1 item failed; its row says" if count == 1 else f"{count} items failed; their rows say"
        print(f"{whose} why, resume={run_dir} tries again")
    return result


def _job(cfg: DictConfig, run_dir: Path, predictions: Predictions) -> Job:
    text = None if cfg.prompt_text is None else str(cfg.prompt_text)
    return Job(
        run_dir=run_dir,
        predictions=predictions,
        prompt_text=text,
        input=cfg.input,
        model=cfg.model_path,
        seed=cfg.seed,
        batch_size=cfg.batch_size,
        program=this_program(),
        settings=[f"{key}={quoted(cfg[key])}" for key in _PASSED if cfg[key] is not None],
    )
