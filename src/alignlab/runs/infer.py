"""Runs of inference: from a composed config to a run directory with predictions.jsonl and result.json."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from alignlab.configs.filling import filled
from alignlab.configs.plugins import listed
from alignlab.configs.roots import InferenceRoot
from alignlab.cost.measured import Clock
from alignlab.files.result import Result
from alignlab.files.runs import newest_run
from alignlab.files.writing import write_text
from alignlab.inference.backend import Backend, ModelSource, Sampling
from alignlab.inference.native.resident import resident_bytes
from alignlab.inference.sampling import check
from alignlab.launch import run_lock
from alignlab.launch.admission import refuse_if_taken
from alignlab.launch.processes import this_program
from alignlab.launch.signals import Inbox
from alignlab.launch.sweep import quoted
from alignlab.models.language.context import path_context
from alignlab.models.language.paths import export_folder, load_tokenizer
from alignlab.models.language.reward import HEAD_FILE
from alignlab.prompting.asking import Asker
from alignlab.prompting.technique import Technique
from alignlab.prompting.zero_shot import ZeroShot
from alignlab.runs.errors import cause
from alignlab.runs.record import git_revision, recorded, show, versions
from alignlab.tasks.job import Job, Subject, Task
from alignlab.tasks.predictions import Predictions

log = logging.getLogger(__name__)
# Root keys that a program which this run starts gets too.
_PASSED = ("model_path", "adapter", "dtype", "seed")


class Unavailable(ValueError):
    """A backend that can't run on this machine."""


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
        for name in ("transformers", "httpx", "huggingface_hub", "torchao", "torch.utils._pytree"):
            logging.getLogger(name).setLevel(logging.ERROR)  # what they report doesn't concern the user
        task: Task = _instantiated(cfg, "task")
        job, before = _job(cfg, run_dir, predictions), len(predictions.rows)
        write_text(run_dir / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True), durable=True)
        clock = Clock()
        try:
            with _subject(cfg, task) as subject:
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


def load_backend(cfg: DictConfig) -> tuple[Backend, Subject]:
    """The backend of a config with its model in it, ready to be asked.

    Raises:
        ValueError: the backend can't run here, the model or adapter can't be loaded, or technique and sampling don't
            fit.
    """
    if cfg.get("backend") is None:
        raise ValueError("backend=null: this task needs a backend")
    batch = {"batch_size": cfg.batch_size} if "batch_size" in cfg.backend else {}  # the backend puts batches together
    backend: Backend = _instantiated(cfg, "backend", **batch)
    there, resident = backend.available(), resident_bytes()
    if not there.ok:
        raise Unavailable(f"backend={backend.name} can't run here: {there.reason}")
    technique: Technique = ZeroShot() if cfg.get("prompt") is None else _instantiated(cfg, "prompt")
    sampling = Sampling() if cfg.get("sampling") is None else _instantiated(cfg, "sampling")
    sampling = sampling._replace(stop=tuple(sampling.stop), stop_ids=tuple(sampling.stop_ids))
    check(sampling)
    if technique.needs_sampling and sampling.temperature == 0:
        raise ValueError(
            "this prompt technique draws several replies, and sampling.temperature=0 makes them equal: use "
            "sampling=varied"
        )
    if cfg.batch_size < 1:
        raise ValueError(f"batch_size is {cfg.batch_size}; it must be at least 1")
    if cfg.adapter is not None and not (Path(cfg.adapter) / "adapter_config.json").is_file():
        raise ValueError(f"adapter={cfg.adapter}: there is no adapter_config.json; name the folder of a PEFT adapter")
    if cfg.model_path is None and backend.name != "scripted":
        raise ValueError("model=null: name a hub id, a folder or a run directory")
    tokenizer = None if cfg.model_path is None else load_tokenizer(cfg.model_path)
    loaded = backend.load(ModelSource(cfg.model_path or "", cfg.adapter, cfg.dtype, tokenizer=tokenizer))
    tokenizer = tokenizer or getattr(backend, "tokenizer", None)
    log.info("%s loaded in %.1f s, %.1f MB of weights", backend.name, loaded.seconds, loaded.weight_bytes / 1e6)
    opened = getattr(backend, "opened", None)
    if opened is not None and tokenizer is not None:
        log.info(
            "a text ends with %s",
            ", ".join(f"{id} {tokenizer.convert_ids_to_tokens(id)!r}" for id in sorted(opened.eos)),
        )
    asker = Asker(backend, tokenizer, sampling, cfg.template, cfg.batch_size, cfg.seed)
    limit = None if cfg.model_path is None else path_context(cfg.model_path)
    return backend, Subject(backend, tokenizer, technique, asker, loaded, limit, cfg.dtype, resident)


@contextmanager
def _subject(cfg: DictConfig, task: Task) -> Iterator[object]:
    """What the task runs on; given back afterwards."""
    rewards = cfg.model_path is not None and (export_folder(cfg.model_path) / HEAD_FILE).is_file()
    if rewards and task.needs == "scorer":
        from alignlab.tasks.rewards import load_rewarded

        if cfg.adapter is not None:
            raise ValueError(f"adapter={cfg.adapter}: {cfg.model_path} is a reward model, which takes none")
        yield load_rewarded(cfg.model_path)
    elif rewards and task.needs == "backend":
        raise ValueError(f"model={cfg.model_path} is a reward model: it answers nothing, task=score gives its rewards")
    elif task.needs in ("backend", "scorer"):
        backend, subject = load_backend(cfg)
        try:
            yield subject
        finally:
            backend.close()
    elif task.needs == "system":
        from alignlab.runs.building import load_system  # lightning, timm and torchvision: only here
        from alignlab.tasks.pictures.subject import VisionLanguage

        if cfg.model_path is None:
            raise ValueError("model=null: name a run directory of clip, siglip or albef")
        system, datamodule = load_system(cfg.model_path, listed(cfg.plugins))
        if not hasattr(system, "encode_image"):
            raise ValueError(
                f"model={cfg.model_path} is no vision-language run: task={cfg.run_name} needs pictures and texts"
            )
        yield VisionLanguage(system, datamodule, Path(cfg.model_path), cfg.batch_size)
    else:
        yield None


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


def _instantiated(cfg: DictConfig, key: str, **settings: object) -> object:
    """A node's object, with settings that win over its own.

    Raises ValueError with the key for whatever its constructor raises.
    """
    try:
        return instantiate(cfg[key], _convert_="all", **settings)
    except InstantiationException as error:
        inner = cause(error, cfg)
        raise inner if isinstance(inner, ValueError) else ValueError(f"{key}: {inner}") from error
