"""A prediction that is frozen before the model is trained, and what became of it."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alignlab.files.checksums import sha256
from alignlab.files.writing import write_text
from alignlab.scaling.curve import Curve
from alignlab.scaling.fits import Compared, expected, fits
from alignlab.scaling.reading import ladder as ladders
from alignlab.scaling.reading.kinds import Kind
from alignlab.scaling.reading.ladder import Ladder

SIZES = 3  # that a law is carried on from, at least
NEAR = 0.1  # share of the size that the model may differ by


@dataclass(frozen=True)
class Foretold:
    """One metric of the model to come, with the 95 % interval of its measurement."""

    task: str
    metric: str
    law: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Scored(Compared):
    """A prediction beside what was measured."""

    expected: Foretold
    actual: float


def freeze(ladder: Ladder, kind: Kind, to: float, file: Path, n: int | None = None) -> list[Foretold]:
    """Writes what is expected of a model of size `to`.

    Raises:
        ValueError: the size lies within the ladder, there are too few sizes, or the file is there already.
    """
    if file.exists():
        raise ValueError(f"{file} is there already: a prediction isn't written anew; name another --output")
    largest = max(x for _, x in ladder.models)
    if to <= largest:
        raise ValueError(f"to is {to:g}; it must lie beyond the largest model, {largest:g}")
    curves = [curve for curve in ladder.curves if len(curve) >= SIZES]
    if not curves:
        raise ValueError(f"{len(ladder.models)} sizes are too few to carry a law on; {SIZES} are needed")
    told, rows = [], []
    for curve in curves:
        each = expected(curve, to, n)
        told.append(Foretold(curve.task, curve.metric.name, each.law, each.value, each.low, each.high))
        rows.append(asdict(told[-1]) | {"higher_is_better": curve.metric.higher, "fit": fits(curve)[0].numbers()})
    text = {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "axis": kind,
        "x": to,
        "n": n,
        "from": [{"name": name, "x": x} for name, x in ladder.models],
        "inputs": {str(source): sha256(source) for source in ladder.sources},
        "predictions": rows,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(text, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    os.chmod(file, 0o444)
    return told


def score(file: Path, run: str) -> tuple[list[Scored], list[str], Path]:
    """Compares a frozen prediction with a run; returns rows, notes, and the file they are written to.

    Raises:
        ValueError: the file is no prediction, the run is of another size, or has nothing that was foretold.
    """
    told = _read(file)
    measured = ladders.read([run], told["axis"])
    near = [x for _, x in measured.models if abs(x - told["x"]) <= NEAR * told["x"]]
    if not near:
        there = ", ".join(f"{x:g}" for _, x in measured.models)
        raise ValueError(f"{file} foretells a model of {told['x']:g}; {run} has {there}")
    curves = {(curve.task, curve.metric.name): curve for curve in measured.curves}
    rows, notes = [], list(measured.problems)
    for each in told["predictions"]:
        foretold = Foretold(*(each[name] for name in ("task", "metric", "law", "value", "low", "high")))
        actual = _value_at(curves.get((foretold.task, foretold.metric)), near[-1])
        if actual is None:
            notes.append(f"{run} has no {foretold.metric} of {foretold.task}")
        else:
            rows.append(Scored(foretold, actual))
    if not rows:
        raise ValueError(f"{run} has none of the metrics that {file} foretells")
    notes += _changed(told["inputs"])
    target = file.with_suffix(".scored.json")
    scored = [asdict(row.expected) | {"actual": row.actual, "error": row.error, "inside": row.inside} for row in rows]
    content = {"prediction": file.name, "sha256": sha256(file), "written": told["written"], "run": run, "x": near[-1]}
    inside = sum(row.inside for row in rows)
    content |= {"inside": inside, "of": len(rows), "rows": scored, "notes": notes}
    write_text(target, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return rows, notes, target


def _value_at(curve: Curve | None, x: float) -> float | None:
    if curve is None or x not in curve.x:
        return None
    return float(curve.values[list(curve.x).index(x)])


def _read(file: Path) -> dict[str, Any]:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        _ = told["written"], told["axis"], told["inputs"].items()
        float(told["x"])
        for each in told["predictions"]:
            _ = each["task"], each["metric"], each["law"], each["value"], each["low"], each["high"]
    except OSError as error:
        raise ValueError(f"{file} can't be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{file} is no prediction of alignlab scaling predict") from None
    return told


def _changed(inputs: dict[str, str]) -> Sequence[str]:
    """Inputs that aren't any more what the prediction was made from."""
    return [
        f"{source} has changed since the prediction was made"
        for source, before in inputs.items()
        if Path(source).is_file() and sha256(Path(source)) != before
    ]
