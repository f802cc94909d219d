"""Sweeps of any Hydra program: overrides of each job, what varies among them, how each has ended."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from alignlab.files.foreign_yaml import yaml_text
from alignlab.studies.design.parameters import Parameter
from alignlab.studies.reading.tables import Logged, logged

DEPTH = 4  # folders below the sweep's in which a job may lie
LOG_FROM = 30.0  # times the smallest value: a range that reaches so far is logarithmic
_MANY = 3  # numbers from which on a parameter is a range


@dataclass
class Sweep:
    """The jobs of a sweep: directory, override by key, what was logged."""

    runs: list[tuple[Path, dict[str, Any], Logged]] = field(default_factory=list)
    objective: str | None = None
    notes: list[str] = field(default_factory=list)


def read(directory: Path) -> Sweep:
    """All jobs of a sweep's directory.

    Raises:
        ValueError: it has no job with `.hydra/overrides.yaml`.
    """
    sweep, unreadable = Sweep(), 0
    for folder in sorted(_jobs(directory, DEPTH), key=_order):
        try:
            point = _overrides(folder)
        except ValueError:
            unreadable += 1
            continue
        sweep.runs.append((folder, point, logged(folder)))
        sweep.objective = sweep.objective or _objective(folder, point)
    if not sweep.runs:
        more = f" ({unreadable} can't be read)" if unreadable else ""
        raise ValueError(f"{directory} holds no runs of Hydra: no folder in it has .hydra/overrides.yaml{more}")
    if unreadable:
        sweep.notes.append(f"{unreadable} runs are left out: their .hydra/overrides.yaml can't be read.")
    return sweep


def varied(points: Sequence[Mapping[str, Any]]) -> tuple[list[Parameter], dict[str, Any]]:
    """What differs among jobs, as parameters, and what all share."""
    keys = list(dict.fromkeys(key for point in points for key in point))
    fixed, parameters = {}, []
    for key in keys:
        values = [point[key] for point in points if key in point]
        distinct = list({repr(value): value for value in values}.values())
        if len(distinct) == 1 and len(values) == len(points):
            fixed[key] = distinct[0]
        elif key.rpartition(".")[2] != "seed":
            parameters.append(_parameter(key, distinct, missing=len(values) < len(points)))
    return parameters, fixed


def end_of(folder: Path, value: float | None) -> tuple[str, str | None]:
    """Status and reason of a job, from result.json or by whether it has a value."""
    told = _json(folder / "result.json")
    if isinstance(told, dict) and isinstance(told.get("status"), str) and told["status"] != "ok":
        status = "infeasible" if told["status"] == "diverged" else "failed"
        return status, f"{told['status']}: {told.get('reason')}"
    if value is None:
        return "failed", _last_words(folder) or "it has left no value"
    return ("ok", None) if math.isfinite(value) else ("infeasible", f"diverged: the value is {value}")


def _jobs(folder: Path, depth: int) -> Iterator[Path]:
    if (folder / ".hydra" / "overrides.yaml").exists():
        yield folder
    elif depth:
        try:
            inside = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
        except OSError:
            return
        for path in inside:
            yield from _jobs(path, depth - 1)


def _order(folder: Path) -> tuple[int, int, str]:
    return (0, int(folder.name), "") if folder.name.isdecimal() else (1, 0, str(folder))


def _overrides(folder: Path) -> dict[str, Any]:
    """`[optim.lr=0.1, +a.b=[1,2], ~c]` as key -> value.

    Raises:
        ValueError: the file is no list of words.
    """
    words = yaml.safe_load(yaml_text(folder / ".hydra" / "overrides.yaml"))
    if words is None:
        return {}
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"{folder}: overrides.yaml is no list of words")
    point = {}
    for word in words:
        key, equals, text = word.partition("=")
        key = key.lstrip("+~")
        if key.startswith("hydra.") or key in ("resume", "study"):
            continue
        point[key] = _value(text) if equals else "left out"
    return point


def _value(text: str) -> Any:
    """A number, a truth value or a text; lists stay as they are typed."""
    if text.lower() in ("true", "false", "null"):
        return {"true": True, "false": False, "null": None}[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text.strip("'\"") if text[:1] in "'\"" else text


def _parameter(key: str, distinct: Sequence[Any], missing: bool) -> Parameter:
    numbers = [v for v in distinct if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)]
    if len(numbers) < len(distinct) or len(numbers) < _MANY or missing:
        return Parameter(key, "scientific", values=tuple(sorted(distinct, key=repr)))
    low, high = min(numbers), max(numbers)
    scale = "log" if low > 0 and high / low >= LOG_FROM else "linear"
    integer = all(isinstance(value, int) for value in numbers)
    return Parameter(key, "nuisance", low, high, scale, integer)


def _objective(folder: Path, point: Mapping[str, Any]) -> str | None:
    """The metric that a program of this project, or of the usual template, was told to optimise."""
    for key in ("objective", "optimized_metric"):
        if isinstance(point.get(key), str):
            return point[key]
    try:
        config = yaml.safe_load(yaml_text(folder / ".hydra" / "config.yaml"))
    except ValueError:
        return None
    named = [config.get(key) for key in ("objective", "optimized_metric")] if isinstance(config, dict) else []
    return next((name for name in named if isinstance(name, str)), None)


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _last_words(folder: Path) -> str | None:
    """The last line of a job's log that speaks of an error."""
    for file in sorted(folder.glob("*.log")):
        lines = file.read_text(encoding="utf-8", errors="replace")[-4000:].splitlines()
        said = [line.strip() for line in lines if "error" in line.lower() or "killed" in line.lower()]
        if said:
            return said[-1][:200]
    return None
