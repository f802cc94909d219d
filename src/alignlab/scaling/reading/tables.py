"""Plain tables: x, metric, n, k of counted hits, or x, metric, value with n or low and high."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from alignlab.evaluation.intervals import LEVEL
from alignlab.scaling.curve import Curve
from alignlab.scaling.metrics import METRICS, Metric

SUFFIXES = (".csv", ".tsv", ".jsonl")
_COLUMNS = "x, metric, and n with k, or value with n or with low and high; task, model, higher, continuous, chance"
_YES, _NO = ("true", "yes", "1", "up", "max"), ("false", "no", "0", "down", "min")


def read_table(file: Path) -> tuple[list[Curve], list[str]]:
    """Curves of a table, and rows that are left out with the reason.

    Raises:
        ValueError: one line: no table, a column is missing, a metric has two directions.
    """
    if file.suffix not in SUFFIXES:
        raise ValueError(f"{file} is no table: its name ends in none of {', '.join(SUFFIXES)}")
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    problems = []
    for number, row in _rows(file):
        try:
            point = _point(row)
        except ValueError as error:
            problems.append(f"{file}:{number}: {error}; left out")
            continue
        groups.setdefault((point["task"], point["metric"]), []).append(point)
    if not groups:
        why = problems[0] if problems else f"it needs columns {_COLUMNS}"
        raise ValueError(f"{file} holds no row that can be read: {why}")
    return [_curve(task, name, points, problems) for (task, name), points in groups.items()], problems


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
            if file.suffix == ".jsonl":
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield number, _object(line)
                return
            reader = csv.DictReader(lines, delimiter="\t" if file.suffix == ".tsv" else ",")
            missing = [name for name in ("x", "metric") if name not in (reader.fieldnames or ())]
            if missing:
                raise ValueError(f"{file} has no column {missing[0]}; it needs {_COLUMNS}")
            for row in reader:
                yield reader.line_num, row
    except OSError as error:
        raise ValueError(f"{file} can't be read ({error.strerror})") from None
    except csv.Error as error:
        raise ValueError(f"{file} is no table ({error})") from None


def _object(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _point(row: dict[str, Any]) -> dict[str, Any]:
    """A row's numbers.

    Raises:
        ValueError: what it lacks.
    """
    told = {name: _number(row, name) for name in ("x", "n", "k", "value", "low", "high", "chance")}
    if not row.get("metric"):
        raise ValueError("no metric")
    if told["x"] is None or told["x"] <= 0:
        raise ValueError(f"x is {row.get('x')!r}; it must be a number above 0")
    if told["k"] is not None:
        if told["n"] is None or not 0 <= told["k"] <= told["n"] or told["n"] < 1:
            raise ValueError(f"k is {row.get('k')} of n {row.get('n')}")
    elif told["value"] is None:
        raise ValueError("neither k nor value is a number")
    elif told["n"] is None and (told["low"] is None or told["high"] is None):
        raise ValueError("a value needs n, or low and high")
    elif told["low"] is None and not 0 <= told["value"] <= 1:
        raise ValueError(f"a value of {told['value']:g} needs low and high: n says nothing of its spread")
    higher = str(row.get("higher") or "").strip().lower()
    if higher and higher not in (*_YES, *_NO):
        raise ValueError(f"higher is {row['higher']!r}; it is true or false")
    names = {"task": str(row.get("task") or "task"), "metric": str(row["metric"]), "model": str(row.get("model") or "")}
    flag = str(row.get("continuous") or "").strip().lower()
    return told | names | {"higher": higher in _YES if higher else None, "continuous": flag in _YES if flag else None}


def _number(row: dict[str, Any], name: str) -> float | None:
    """A column's number; None where it is empty.

    Raises:
        ValueError: it is none, or not finite.
    """
    text = row.get(name)
    if text is None or text == "":
        return None
    try:
        value = float(text)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {text!r}, no number") from None
    if not math.isfinite(value):
        raise ValueError(f"{name} is {text}")
    return value


def _curve(task: str, name: str, points: list[dict[str, Any]], problems: list[str]) -> Curve:
    directions = {point["higher"] for point in points if point["higher"] is not None}
    if len(directions) > 1:
        raise ValueError(f"higher is true in some rows of {task}, {name} and false in others")
    hits = all(point["k"] is not None for point in points)
    most = max(point["value"] or 0.0 for point in points)
    metric = _metric(name, hits, directions.pop() if directions else None, points[0]["continuous"], most)
    points = sorted(points, key=lambda point: point["x"])
    kept: list[dict[str, Any]] = []
    for point in points:
        if kept and kept[-1]["x"] == point["x"]:
            problems.append(f"{task}, {name}: a second row for x = {point['x']:g}; left out")
        else:
            kept.append(point)
    n = np.array([point["n"] or 0 for point in kept])
    values = np.array([p["k"] / p["n"] if p["k"] is not None else p["value"] for p in kept])
    errors = None if hits else np.array([_error(point, value) for point, value in zip(kept, values, strict=True)])
    names = tuple(point["model"] or f"{point['x']:g}" for point in kept)
    x = np.array([point["x"] for point in kept])
    return Curve(task, metric, x, values, n, names, errors=errors, chance=kept[0]["chance"] or 0.0)


def _error(point: dict[str, Any], value: float) -> float:
    """Standard error by the interval; of a value with n alone at most that of hits, where it lies from 0 to 1."""
    if point["low"] is not None and point["high"] is not None:
        return max((point["high"] - point["low"]) / (2 * LEVEL), 1e-12)
    middle = min(max(value, 1 / (point["n"] + 2)), 1 - 1 / (point["n"] + 2))
    return math.sqrt(middle * (1 - middle) / point["n"])


def _metric(name: str, hits: bool, higher: bool | None, continuous: bool | None, most: float) -> Metric:
    """A known metric, or one by what the table says of it: hits are all or nothing, and more is better."""
    known = METRICS.get(name)
    if known is not None and (higher is None or higher == known.higher) and (hits or not known.hits):
        return known
    up = higher if higher is not None else (known.higher if known else True)
    gradual = continuous if continuous is not None else (known.continuous if known else not hits)
    best = known.best if known else (0.0 if not up else 1.0 if most <= 1 else None)
    return Metric(name, up, gradual, best, lambda _: None, hits=hits)
