"""Run directories under `outputs/` that another run can begin from: the newest that fits, and why newer ones don't."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from alignlab.files.kinds import line_of
from alignlab.files.result import Result
from alignlab.models.language.paths import resolve_model
from alignlab.runs.resuming import saved_config

OUTPUTS = Path("outputs")
DEPTH = 4  # folders below it: outputs/<run_name>/<time>/<stage of a chain>, outputs/studies/<name>/<number>
LANGUAGE_DATA = "alignlab.data.language.modules."

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Wanted:
    """A kind of run.

    Attributes:
        name: of such a run, for people.
        of_kind: whether a run's config is of the kind; what isn't one is no candidate.
        folder: what the run must have left: `export` or `checkpoints`.
    """

    name: str
    of_kind: Callable[[Config], bool]
    folder: str = "export"


def trained_by(target: str) -> Callable[[Config], bool]:
    """Configs whose method is the class at a dotted path."""
    return lambda cfg: _target(cfg, "model") == target


def answers(cfg: Config) -> bool:
    """Configs of language models that answer: all but reward models."""
    reward = _target(cfg, "model").endswith(".RewardMethod")
    return _target(cfg, "data").startswith(LANGUAGE_DATA) and not reward


def sees(cfg: Config) -> bool:
    """Configs of models of pictures and texts."""
    return _target(cfg, "data").startswith("alignlab.data.image_text.")


def newest(wanted: Wanted, outputs: Path = OUTPUTS) -> tuple[Path | None, list[str]]:
    """The newest run that fits, by the time of what it has learned, or None; with a line for each newer one of the
    kind that doesn't.
    """
    passed_by = []
    for run_dir in _newest_first(outputs, wanted.folder):
        try:
            cfg = _config(run_dir)
        except ValueError as error:
            if (run_dir / wanted.folder).is_dir():  # else it is somebody's folder with a config.yaml
                passed_by.append(f"{run_dir}: {line_of(error)}")
            continue
        if not wanted.of_kind(cfg):
            continue
        if (reason := _unfit(run_dir, wanted)) is None:
            return run_dir, passed_by
        passed_by.append(f"{run_dir}: {reason}")
    return None, passed_by


def told(run_dir: Path) -> str:
    """A run in a few words: its folder and how long it trained."""
    result = Result.read(run_dir)
    return f"{run_dir}" if result is None else f"{run_dir} ({result.steps} steps)"


def _newest_first(outputs: Path, folder: str) -> Iterator[Path]:
    dated = []
    for depth in range(1, DEPTH + 1):
        for file in outputs.glob("/".join(["*"] * depth) + "/config.yaml"):
            run_dir = file.parent
            if any(part.startswith(".") for part in run_dir.relative_to(outputs).parts):
                continue
            try:
                inside = run_dir / folder
                when = (inside if inside.is_dir() else file).stat().st_mtime_ns
            except OSError:  # gone meanwhile
                continue
            dated.append((when, run_dir))
    return (run_dir for _, run_dir in sorted(dated, reverse=True))


def _config(run_dir: Path) -> Config:
    return OmegaConf.to_container(saved_config(run_dir), resolve=False, throw_on_missing=False)


def _unfit(run_dir: Path, wanted: Wanted) -> str | None:
    """Why a run of the kind can't be begun from."""
    result = Result.read(run_dir)
    if result is None:
        return "it hasn't ended"
    if result.status != "ok":
        return f"it is {result.status}"
    if any((run_dir.parent / name).exists() for name in ("sweep.json", "multirun.yaml", "trials.jsonl")):
        return "it is one of a sweep's, of which you choose"
    if run_dir.name == "judge" or "_judge" in run_dir.parent.name:
        return "it is a judge, which no training sees"
    inside = run_dir / wanted.folder
    if not inside.is_dir() or not any(inside.iterdir()):
        return f"it has no {wanted.folder}/"
    if wanted.folder == "export":
        try:
            base, _ = resolve_model(str(run_dir))
        except ValueError as error:
            return line_of(error)
        if _is_place(base) and not Path(base).exists():
            return f"the base of its adapter, {base}, is gone"
    return None


def _is_place(base: str) -> bool:
    return base.startswith(("/", ".", "~"))


def _target(cfg: Config, key: str) -> str:
    node = cfg.get(key)
    return str(node.get("_target_", "")) if isinstance(node, Mapping) else ""


def read_taken(file: Path) -> dict[str, str]:
    """What was agreed on in a file; nothing where there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
