"""What a run has logged, as curves: our metrics.csv, Lightning's, and those of other loggers."""

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from alignlab.studies.design.declaration import Metric

Curve = list[tuple[float, float]]  # step, value; steps ascend
_STEPS = ("step", "global_step", "_step", "iteration", "iter", "epoch")
_DEPTH = 5  # folders below a run in which a logger may have its own


@dataclass
class Logged:
    """A run's curves by name, and last values without a step."""

    curves: dict[str, Curve] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return sorted({*self.curves, *self.last})

    def value(self, metric: Metric) -> float | None:
        """The metric as it is to be read; None where it wasn't logged, or never was finite."""
        if metric.reduce == "last" and self.last.get(metric.name) is not None:
            return self.last[metric.name]
        values = [(step, value) for step, value in self.curves.get(metric.name, ()) if math.isfinite(value)]
        if metric.reduce == "at_step":
            values = [(step, value) for step, value in values if step <= metric.step]
        if not values:
            return None if metric.reduce == "at_step" else self.last.get(metric.name)
        if metric.reduce == "best":
            return (min if metric.mode == "min" else max)(value for _, value in values)
        return values[-1][1]


def logged(run_dir: Path) -> Logged:
    """All that a run has left in numbers; empty where there is nothing that can be read."""
    told = Logged()
    for file in _files(run_dir):
        for name, curve in _curves(file).items():
            told.curves.setdefault(name, curve)
    for name in ("result.json", "metrics.json", "results.json"):
        told.last = {**_numbers(run_dir / name), **told.last}
    return told


def _files(run_dir: Path) -> list[Path]:
    """Tables of loggers, those that belong to the run itself first; of several versions the newest."""
    own = run_dir / "metrics.csv"
    if own.is_file():
        return [own]
    there = [file for file in _below(run_dir, _DEPTH) if file.suffix == ".csv"]
    named = [file for file in there if file.name == "metrics.csv"]
    return sorted(named or there, key=lambda file: file.stat().st_mtime_ns, reverse=True)[:4]


def _below(folder: Path, depth: int) -> Iterator[Path]:
    try:
        inside = sorted(folder.iterdir())
    except OSError:
        return
    for path in inside:
        if path.is_file():
            yield path
        elif depth and path.is_dir() and not path.name.startswith("."):
            yield from _below(path, depth - 1)


def _curves(file: Path) -> dict[str, Curve]:
    """A table's columns against its step; lines that are no rows of it don't count."""
    try:
        with file.open(newline="", encoding="utf-8", errors="replace") as text:
            rows = list(csv.reader(text))
    except (OSError, csv.Error):
        return {}
    header = rows.pop(0) if rows else []
    by = next((header.index(name) for name in _STEPS if name in header), None)
    if by is None:
        return {}
    curves: dict[str, Curve] = {name: [] for place, name in enumerate(header) if place != by}
    for row in rows:
        step = _float(row[by]) if len(row) == len(header) else None
        if step is None:
            continue
        for place, text in enumerate(row):
            if text and place != by and (value := _float(text)) is not None:
                curves[header[place]].append((step, value))
    return {name: curve for name, curve in curves.items() if curve}


def _numbers(file: Path) -> dict[str, float]:
    """The numbers of a JSON object, and of an object `metrics` in it."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(values, dict):
        return {}
    inner = values.get("metrics")
    source = inner if isinstance(inner, dict) else values
    return {str(n): float(v) for n, v in source.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
