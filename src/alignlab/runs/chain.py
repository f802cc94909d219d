"""A chain: several trainings in a row from one command, `python train.py chain=rlhf_movies`.

Each stage is a training of its own in its own process and in a folder of the run directory, so that it can be looked
at, resumed or repeated alone.
"""

import re
import signal
import sys
from collections.abc import Container, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from alignlab.configs import plugins
from alignlab.configs.check import ConfigError, check, nearest
from alignlab.configs.command_line import arguments
from alignlab.configs.explain import composed
from alignlab.configs.filling import filled
from alignlab.configs.parts import named_by, strangers
from alignlab.configs.roots import ChainRoot
from alignlab.files.leaves import leaves
from alignlab.files.result import Result, Status
from alignlab.files.writing import write_text
from alignlab.launch import run_lock
from alignlab.launch.admission import refuse_if_taken
from alignlab.launch.environment import launch
from alignlab.launch.processes import run_in_turn, this_program
from alignlab.launch.rank_watch import ended_how
from alignlab.launch.signals import Inbox, Interrupted
from alignlab.launch.sweep import quoted
from alignlab.runs.record import git_revision, recorded, versions
from alignlab.runs.resuming import resumed, saved_config

_FOLDER = re.compile(r"\w[\w.-]*")


class StageFailed(Exception):
    """A stage has come to another end than a good one; its own error was already printed."""

    def __init__(self, message: str, status: Status, exit_code: int) -> None:
        super().__init__(message)
        self.status, self.exit_code = status, exit_code


@dataclass(frozen=True)
class Stage:
    """One training of a chain.

    Attributes:
        words: its overrides, in Hydra's grammar.
    """

    name: str
    folder: Path
    words: tuple[str, ...]

    @property
    def done(self) -> bool:
        result = Result.read(self.folder)
        return result is not None and result.status == "ok"

    @property
    def begun(self) -> bool:
        return (self.folder / "config.yaml").exists()

    def arguments(self, goes_on: bool) -> list[str]:
        """Its command line; one that has been begun resumes where the chain does."""
        words = [*self.words, f"hydra.run.dir={quoted(self.folder)}"]
        return [*words, f"resume={quoted(self.folder)}"] if goes_on and self.begun else words


def checked(cfg: DictConfig, run_dir: Path) -> DictConfig:
    """The chain's config, that of the chain it resumes with this command line on top; all its stages composed and
    checked.

    Raises:
        ConfigError: every problem of every stage, with its path as one would type it.
    """
    trusted = _trusted(cfg := filled(cfg, ChainRoot))
    cfg = _resumed(cfg, run_dir, trusted)
    check(cfg, root=ChainRoot)
    if strange := [name for name in cfg.stages if not _FOLDER.fullmatch(str(name))]:
        raise ConfigError([f"stages: {name!r} can't be a folder's name" for name in strange])
    problems = list(_misdirected(cfg))
    wrong: dict[str, list[str]] = {}
    todo = stages(cfg, run_dir)
    for stage in todo:
        for problem in _problems(stage, cfg, run_dir, trusted):
            wrong.setdefault(problem, []).append(stage.name)
    for problem, names in wrong.items():  # what is wrong for all was typed for all
        problems += [problem] if len(names) == len(todo) > 1 else [f"stages.{name}.{problem}" for name in names]
    if problems:
        raise ConfigError(problems)
    return cfg


def shown(cfg: DictConfig) -> DictConfig:
    """The stages' configs by name, every default written out; of a directory that doesn't exist yet."""
    run_dir = Path("{run}")
    return OmegaConf.create({stage.name: filled(composed(arguments(stage.words))) for stage in stages(cfg, run_dir)})


def stages(cfg: DictConfig, run_dir: Path) -> list[Stage]:
    """The stages in order, with the chain's words, those of the command line for all and those for them; the last of a
    key counts.
    """
    made = []
    for name, own in OmegaConf.to_container(cfg.stages).items():
        if own is None:
            continue
        words = [_in_run(word, run_dir) for word in own]
        words += [word for word in cfg.overrides if not _bare(word).startswith("stages.")]
        words += [
            word.replace(f"stages.{name}.", "", 1)
            for word in cfg.overrides
            if _bare(word).startswith(f"stages.{name}.")
        ]
        latest = {_bare(word).partition("=")[0]: word for word in words}
        made.append(Stage(name, run_dir / name, tuple(latest.values())))
    return made


def chain(cfg: DictConfig) -> Result:
    """Runs the stages of a checked config in order and leaves their metrics as `<stage>/<metric>` in the chain's
    result.json.

    Raises:
        StageFailed: what its name says; what comes after it isn't begun.
        Interrupted: a signal asked for the end; the stage that ran has got it and has ended in order.
        ValueError: the directory is in use, or the objective was never logged.
    """
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    result = Result(git_revision=git_revision(), versions=versions())
    with run_lock.held(run_dir), Inbox(_say) as inbox, recorded(result, run_dir, cfg):
        inbox.deferred = True
        refuse_if_taken(run_dir, cfg.resume, "chain")
        (run_dir / "result.json").unlink(missing_ok=True)
        write_text(run_dir / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True), durable=True)
        for stage in stages(cfg, run_dir):
            _run(stage, result, inbox, goes_on=cfg.resume is not None)
        if cfg.objective is not None and cfg.objective not in result.metrics:
            raise ValueError(
                f"objective={cfg.objective} was never logged; there are {', '.join(sorted(result.metrics))}"
            )
        result.objective = None if cfg.objective is None else result.metrics[cfg.objective]
        result.status = "ok"
    print(f"all stages done in {result.seconds:.0f} s: {run_dir}", flush=True)
    return result


def _run(stage: Stage, result: Result, inbox: Inbox, goes_on: bool) -> None:
    """Trains a stage unless that is done, and takes its numbers over."""
    code = 0
    if goes_on and stage.done:
        print(f"== {stage.name} is there already", flush=True)
    else:
        words = stage.arguments(goes_on)
        print(f"== {stage.name}: {' '.join(words)}", flush=True)
        (stage.folder / "result.json").unlink(missing_ok=True)
        code = run_in_turn([*this_program(), *words], inbox)
    outcome = Result.read(stage.folder) or Result("failed", ended_how(code))
    result.metrics |= {f"{stage.name}/{name}": value for name, value in outcome.metrics.items()}
    result.steps += outcome.steps
    result.seed = outcome.seed
    result.peak_memory_bytes = max(result.peak_memory_bytes, outcome.peak_memory_bytes)
    if inbox.received or outcome.status == "interrupted":
        result.reason = f"stage {stage.name}: {outcome.reason or 'done'}"
        raise Interrupted(inbox.received or (code - 128 if code > 128 else signal.SIGINT))
    if code or outcome.status != "ok":
        status = "failed" if outcome.status == "ok" else outcome.status
        raise StageFailed(
            f"stage {stage.name} {status}: {outcome.reason or ended_how(code)}", status, code if code > 0 else 1
        )


def _resumed(cfg: DictConfig, run_dir: Path, trusted: Container[str]) -> DictConfig:
    if cfg.resume is None and launch().restarts and (run_dir / "config.yaml").exists():
        cfg.resume = str(run_dir)
    if cfg.resume is None:
        return cfg
    try:
        saved = filled(saved_config(cfg.resume, trusted), ChainRoot)
    except ValueError as error:
        raise ConfigError([f"resume: {error}"]) from error
    left_out = [name for name, words in cfg.stages.items() if words is None]
    saved.stages.update(dict.fromkeys(left_out))
    more = [word for word in cfg.overrides if word not in saved.overrides]
    saved.overrides, saved.resume, saved.plugins = [*saved.overrides, *more], cfg.resume, cfg.plugins
    saved.objective = cfg.objective or saved.objective
    return saved


def _trusted(cfg: DictConfig) -> plugins.Plugins:
    """What the command that resumes a chain has named: in `plugins`, or by words for the stages."""
    own, names = plugins.of(cfg), set()
    for word in cfg.overrides:
        with suppress(ValueError):  # a word that names nothing
            names |= {name for _, name in named_by(word, own)}
    return plugins.Plugins(own.plugins, names)


def _misdirected(cfg: DictConfig) -> Iterator[str]:
    """Words of the command line that no stage gets."""
    for word in cfg.overrides:
        first, _, rest = _bare(word).partition("=")[0].partition(".")
        if first == "experiment":
            yield f"{word}: each stage has its own; change one with stages.<name>.experiment=..."
        if first == "stages":
            name = rest.partition(".")[0]
            if cfg.stages.get(name) is None:
                what = "is left out" if name in cfg.stages else f"no such stage{nearest(name, cfg.stages)}"
                yield f"stages.{name}: {what} (stages: {', '.join(cfg.stages)})"


def _problems(stage: Stage, cfg: DictConfig, run_dir: Path, trusted: Container[str]) -> Iterator[str]:
    """What is wrong with a stage's command line, before anything runs; what earlier stages leave is
    taken to be there.
    """
    if cfg.resume is not None and stage.done:
        return
    try:
        words = arguments(stage.arguments(goes_on=cfg.resume is not None))
        own = resumed(composed(words), words)
    except ConfigError as error:
        yield from error.problems
        return
    try:
        check(filled(own))
    except ConfigError as error:
        yield from error.problems
    if cfg.resume is not None and (problem := strangers(OmegaConf.to_container(own), trusted)):
        yield problem  # words out of a run directory chose a file that isn't ours
    names = list(cfg.stages)
    before = {name for name in names[: names.index(stage.name)] if cfg.stages[name] is not None}
    for key, value in leaves(OmegaConf.to_container(own)):
        if key == "resume" or not isinstance(value, str) or not value.startswith(f"{run_dir}/"):
            continue
        name = value.removeprefix(f"{run_dir}/").partition("/")[0]
        if name in names and name not in before and not (run_dir / name).exists():
            yield f"{key}: stage {name} doesn't come before; set stages.{stage.name}.{key}=..."


def _in_run(word: str, run_dir: Path) -> str:
    key, _, value = word.partition("=")
    return f"{key}={quoted(value.replace('{run}', str(run_dir)))}" if "{run}" in value else word


def _bare(word: str) -> str:
    return word.lstrip("+~")


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
