"""items.jsonl: what a model gave for each item of each task; rows that can't be read are listed, not guessed."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignlab.scaling.metrics import Item

NUMBERS = ("target_logprobs", "option_logprobs")
LISTED = 20  # problems of a file that are told one by one


@dataclass
class Items:
    """Task -> id -> what the model gave for it, once or several times; and what is wrong with the file."""

    tasks: dict[str, dict[str, list[Item]]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def files_of(run_dir: Path) -> list[Path]:
    """Where a run keeps its items: items.jsonl, and files in items/, as each evaluator writes one."""
    own = run_dir / "items.jsonl"
    return [own] * own.is_file() + sorted((run_dir / "items").glob("*.jsonl"))


def read_items(run_dir: Path) -> Items:
    """All items of a run."""
    told = Items()
    for file in files_of(run_dir):
        bad = []
        try:
            with file.open(encoding="utf-8", errors="replace") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        bad += [f"{file}:{number}: {why}" for why in _take(told, line, file)]
        except OSError as error:
            bad.append(f"{file}: can't be read ({error.strerror})")
        told.problems += bad[:LISTED]
        if len(bad) > LISTED:
            told.problems.append(f"{file}: {len(bad) - LISTED} more such rows")
    return told


def _take(told: Items, line: str, file: Path) -> list[str]:
    try:
        item = json.loads(line)
    except (ValueError, RecursionError):
        return ["no JSON; left out"]
    if not isinstance(item, dict) or item.get("id") is None:
        return ["no object with an id; left out"]
    task = str(item.get("task") or (file.stem if file.parent.name == "items" else "task"))
    why = _without_what_is_no_number(item)
    told.tasks.setdefault(task, {}).setdefault(str(item["id"]), []).append(item)
    return why


def _without_what_is_no_number(item: dict[str, Any]) -> list[str]:
    """Drops fields that hold NaN or infinity, or no numbers at all."""
    why = []
    for name in NUMBERS:
        values = item.get(name)
        if values is not None and not (isinstance(values, list) and all(map(_finite, values))):
            del item[name]
            why.append(f"{name} isn't a list of finite numbers; left out")
    if item.get("rank") is not None and not _finite(item["rank"]):
        del item["rank"]
        why.append("rank isn't a finite number; left out")
    return why


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
