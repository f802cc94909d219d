"""trials.jsonl: a line for every trial that has ended, however it ended; lines are added and never changed."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from alignlab.files.text import parse_json
from alignlab.files.writing import sync, write_text
from alignlab.studies.design.declaration import Study

FILE, STUDY = "trials.jsonl", "study.json"


@dataclass
class Trial:
    """What became of a trial.

    Attributes:
        status: ok; infeasible: it diverged, or went beyond the study's limit; failed: crashed or was killed;
            interrupted: it goes on when the study does.
        value: of the study's metric; None where there is none.
        directory: below the study's.
    """

    trial: int
    point: dict[str, Any]
    status: str
    reason: str | None = None
    value: float | None = None
    steps: int = 0
    seconds: float = 0.0
    directory: str = ""
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        return self.status != "interrupted"


class Record:
    """A study's directory: what was declared, and the trials so far.

    Raises:
        ValueError: the directory holds another study, or a line in the midst can't be read.
    """

    def __init__(self, directory: Path, study: Study, program: Sequence[str]) -> None:
        self.file = directory / FILE
        self.trials: dict[int, Trial] = {}
        _refuse_another(directory / STUDY, study)
        self.trials = read(directory)
        _cut(self.file)
        told = {"goal": study.goal, "metric": asdict(study.metric), "trials": study.trials} | study.identity()
        told |= {"infeasible": dict(study.infeasible), "program": list(program), "cwd": os.getcwd()}
        write_text(directory / STUDY, json.dumps(told, indent=2, ensure_ascii=False) + "\n", durable=True)

    def add(self, trial: Trial) -> None:
        """Writes a line, at once and to the disk; the newest line of a trial counts."""
        self.trials[trial.trial] = trial
        line = json.dumps(asdict(trial), ensure_ascii=False, allow_nan=False) + "\n"
        with self.file.open("ab") as file:
            file.write(line.encode("utf-8", errors="surrogateescape"))
        sync(self.file)


def read(directory: Path) -> dict[int, Trial]:
    """The trials of a study by number. A last line without its end, whose writer was killed, doesn't count."""
    file = directory / FILE
    if not file.exists():
        return {}
    known = {each.name for each in fields(Trial)}
    trials = {}
    for number, line in enumerate(_whole(file).decode("utf-8", errors="replace").split("\n"), 1):
        if not line.strip():
            continue
        row, where = parse_json(line, f"{file}, line {number}"), f"{file}, line {number}"
        right = isinstance(row, dict) and isinstance(row.get("trial"), int) and isinstance(row.get("point"), dict)
        if not right or not isinstance(row.get("status"), str):
            raise ValueError(f"{where}: a trial has a number, a point and a status, not {line[:80]}")
        trials[row["trial"]] = Trial(**{name: value for name, value in row.items() if name in known})
    return trials


def _whole(file: Path) -> bytes:
    content = file.read_bytes()
    return content[: content.rfind(b"\n") + 1]


def _cut(file: Path) -> None:
    """Takes away a line without its end, for the next one to begin on a line of its own."""
    if file.exists() and (length := len(_whole(file))) < file.stat().st_size:
        with file.open("r+b") as cut:
            cut.truncate(length)


def _refuse_another(file: Path, study: Study) -> None:
    if not file.exists():
        return
    try:
        there = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} can't be read ({error}); choose another directory (hydra.sweep.dir=...)") from None
    mine = json.loads(json.dumps(study.identity()))
    for key, value in mine.items():
        if there.get(key) != value:
            what = _first_difference(there.get(key), value, key)
            raise ValueError(
                f"{file.parent} holds another study ({what}); choose another directory (hydra.sweep.dir=...)"
            )


def _first_difference(old: Any, new: Any, key: str) -> str:
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for before, after in zip(old, new, strict=True):
            if before != after:
                return _first_difference(before, after, str(after.get("key")) if isinstance(after, dict) else key)
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            if old.get(name) != new.get(name):
                return f"{key}.{name} was {old.get(name)!r} and is {new.get(name)!r}"
    return f"{key} was {old!r} and is {new!r}"[:200]
