"""What a task of infer.py works on: a backend with its model, a system with its data, a reward model, or whatever lies
at a place.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from alignlab.configs.plugins import listed
from alignlab.files.runs import newest_run
from alignlab.inference.backend import Backend, ModelSource, Sampling
from alignlab.inference.native.resident import resident_bytes
from alignlab.inference.sampling import check
from alignlab.models.language.context import path_context
from alignlab.models.language.paths import export_folder, load_tokenizer
from alignlab.models.language.reward import holds_reward_model
from alignlab.prompting.asking import Asker
from alignlab.prompting.technique import Technique
from alignlab.prompting.zero_shot import ZeroShot
from alignlab.runs.errors import cause
from alignlab.tasks.job import Opened, Subject, Task

log = logging.getLogger(__name__)


class Unavailable(ValueError):
    """A backend that can't run on this machine."""


@contextmanager
def subject_of(cfg: DictConfig, task: Task) -> Iterator[object]:
    """What the task runs on; given back afterwards."""
    rewards = cfg.model_path is not None and holds_reward_model(export_folder(cfg.model_path))
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
    elif task.needs == "any":
        with _opened(cfg, getattr(task, "other", None)) as subjects:
            yield subjects
    else:
        yield None


def load_backend(cfg: DictConfig) -> tuple[Backend, Subject]:
    """The backend of a config with its model in it, ready to be asked.

    Raises:
        ValueError: the backend can't run here, the model or adapter can't be loaded, or technique and sampling don't
            fit.
    """
    if cfg.get("backend") is None:
        raise ValueError("backend=null: this task needs a backend")
    batch = {"batch_size": cfg.batch_size} if "batch_size" in cfg.backend else {}  # the backend puts batches together
    backend: Backend = instantiated(cfg, "backend", **batch)
    there, resident = backend.available(), resident_bytes()
    if not there.ok:
        raise Unavailable(f"backend={backend.name} can't run here: {there.reason}")
    technique: Technique = ZeroShot() if cfg.get("prompt") is None else instantiated(cfg, "prompt")
    sampling = Sampling() if cfg.get("sampling") is None else instantiated(cfg, "sampling")
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
def _opened(cfg: DictConfig, other: str | None) -> Iterator[list[Opened]]:
    """The config's model and another one, given back afterwards.

    Raises:
        ValueError: one of them is no model that can be read.
    """
    if cfg.model_path is None:
        raise ValueError("model=null: name a run directory, a folder or a hub id")
    backends: list[Any] = []
    try:
        yield [_one(cfg, place, backends) for place in (cfg.model_path, other) if place is not None]
    finally:
        for backend in backends:
            backend.close()


def _one(cfg: DictConfig, place: str, backends: list[Any]) -> Opened:
    name = place.rstrip("/")
    if holds_reward_model(export_folder(place)):
        from alignlab.tasks.rewards import load_rewarded

        return Opened(name, load_rewarded(place))
    if _sees(place):
        from alignlab.runs.loading import load  # lightning, timm and torchvision: only here
        from alignlab.tasks.pictures.subject import VisionLanguage

        model = load(place, plugins=listed(cfg.plugins))
        return Opened(name, VisionLanguage(model.system, model.data, newest_run(place), cfg.batch_size))
    one = cfg.copy()
    if place != cfg.model_path:
        one.model_path, one.adapter = place, None
    backend, subject = load_backend(one)
    backends.append(backend)
    return Opened(name, subject)


def _sees(place: str) -> bool:
    """Whether it is a model of pictures and texts: a run without the export that language models leave, or a released
    CLIP or SigLIP.
    """
    run_dir = newest_run(place)
    if (run_dir / "checkpoints").is_dir():
        return not (run_dir / "export").is_dir()
    from alignlab.models.released.source import read_released

    try:
        read_released(place)
    except ValueError:
        return False
    return True


def instantiated(cfg: DictConfig, key: str, **settings: object) -> object:
    """A node's object, with settings that win over its own.

    Raises ValueError with the key for whatever its constructor raises.
    """
    try:
        return instantiate(cfg[key], _convert_="all", **settings)
    except InstantiationException as error:
        inner = cause(error, cfg)
        raise inner if isinstance(inner, ValueError) else ValueError(f"{key}: {inner}") from error
