"""A sweep: its jobs, what became of each, and the table of it."""

import csv
import io
import json
import math
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import yaml

from alignlab.files.aside import set_aside
from alignlab.files.foreign_yaml import yaml_text
from alignlab.files.result import Result
from alignlab.files.writing import write_text
from alignlab.launch.rank_watch import ended_how

CONSOLE = "console.log"


def quoted(value: object) -> str:
    """A value in Hydra's grammar of overrides."""
    if isinstance(value, int | float):
        return str(value)
    return "'" + re.sub(r"(\\*)('|$)", _escaped, str(value)) + "'"


def _escaped(match: re.Match) -> str:
    """A backslash counts only before a quote, be it the closing one."""
    return match[1] * 2 + ("\\'" if match[2] else "")


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    number: int
    overrides: tuple[str, ...]  # in Hydra's grammar, without hydra.*
    directory: Path

    @property
    def checkpoint(self) -> Path:
        return self.directory / "checkpoints" / "last.ckpt"

    @property
    def begun(self) -> bool:
        """Whether there is a run to go on with, or a chain."""
        return self.checkpoint.exists() or (self.directory / "config.yaml").exists()

    def arguments(self, begun: bool | None = None) -> list[str]:
        """The command line of its run, which goes on if it was begun; None: if the directory says so now."""
        directory = quoted(self.directory)
        words = [*self.overrides, f"hydra.run.dir={directory}", f"hydra.job.num={self.number}"]
        return [*words, f"resume={directory}"] if (self.begun if begun is None else begun) else words


@dataclass
class Row:
    """What became of a job; one field a column."""

    job: int
    overrides: str
    status: str
    reason: str | None
    objective: float | None
    steps: int
    seconds: float
    directory: str

    def same_job(self, job: Job) -> bool:
        return self.overrides == " ".join(job.overrides)


@dataclass
class Sweep:
    """The rows so far, kept in sweep.json and sweep.csv of the sweep's directory."""

    directory: Path
    rows: dict[int, Row] = field(default_factory=dict)

    @classmethod
    def read(cls, directory: Path) -> "Sweep":
        """What an earlier process has left there; nothing if there is nothing, or nothing that can be read."""
        file, rows = directory / "sweep.json", []
        try:
            rows = [Row(**row) for row in json.loads(file.read_text(encoding="utf-8"))] if file.exists() else []
        except (ValueError, TypeError, RecursionError):
            print(
                f"{file} can't be read; it is now {set_aside(file).name}, and the table begins again", file=sys.stderr
            )
        return cls(directory, {row.job: row for row in rows})

    def add(self, row: Row) -> None:
        """Takes a row down, on disk too."""
        self.rows[row.job] = row
        rows = [asdict(self.rows[number]) for number in sorted(self.rows)]
        write_text(self.directory / "sweep.json", json.dumps(rows, indent=2, allow_nan=False) + "\n")
        table = io.StringIO()
        writer = csv.DictWriter(table, [each.name for each in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.directory / "sweep.csv", table.getvalue())

    def show(self) -> None:
        """Prints the table."""
        from rich.console import Console
        from rich.table import Table

        ok = sum(row.status == "ok" for row in self.rows.values())
        words = {number: row.overrides.split() for number, row in self.rows.items()}
        same = (
            set.intersection(*map(set, words.values())) if len(words) > 1 else set()
        )  # not worth a place in every row
        table = Table(
            "job", "overrides", "status", "objective", "steps", "seconds", title=f"{ok} of {len(self.rows)} ok"
        )
        for _, row in sorted(self.rows.items()):
            objective = "" if row.objective is None else f"{row.objective:.6g}"
            status = row.status if row.reason is None else f"{row.status}: {row.reason}"
            own = " ".join(word for word in words[row.job] if word not in same)
            table.add_row(str(row.job), own, status, objective, str(row.steps), f"{row.seconds:.0f}")
        console = Console(highlight=False)
        console.print(table)
        console.print(f"sweep directory  {self.directory}", soft_wrap=True)


def finished(job: Job, code: int | None, seconds: float, stopped: bool = False) -> Row:
    """The row of a job that has ended, from its result.json; without one, from its exit code and its last words.

    Args:
        code: of the process; negative: a signal's number.
        seconds: since it was begun, for a job that can't tell itself.
        stopped: the sweep itself has stopped it.
    """
    result = Result.read(job.directory)
    if result is None:
        result = Result("interrupted" if stopped else "failed", ended_how(code) + _last_line(job))
    if result.status == "ok" and code not in (0, None):
        result.status, result.reason = "failed", f"after result.json: {ended_how(code)}"
    return Row(
        job.number,
        " ".join(job.overrides),
        result.status,
        result.reason,
        result.objective,
        result.steps,
        round(result.seconds or seconds, 1),
        str(job.directory),
    )


def left_behind(job: Job) -> Row | None:
    """The row of an interrupted job whose sweep was gone before it could write one; None for any other."""
    result = Result.read(job.directory)
    if result is None or result.status != "interrupted":
        return None
    try:
        recorded = yaml.safe_load(yaml_text(job.directory / ".hydra" / "overrides.yaml"))
        words = [word.lstrip("+") for word in recorded if not word.startswith("resume=")]
    except (ValueError, TypeError, AttributeError):
        return None
    return finished(job, None, 0.0) if words == [word.lstrip("+") for word in job.overrides] else None


def prepared(job: Job, again: Row | None) -> None:
    """Makes a job's directory ready: of an interrupted run, the checkpoint is used; any other is put aside, never
    deleted.
    """
    if job.directory.exists() and not (again is not None and again.status == "interrupted" and again.same_job(job)):
        aside = next(
            path for n in range(1, 1000) if not (path := job.directory.with_name(f"{job.directory.name}.{n}")).exists()
        )
        shutil.move(job.directory, aside)
    job.directory.mkdir(parents=True, exist_ok=True)
    (job.directory / "result.json").unlink(missing_ok=True)


def objectives(rows: Sequence[Row]) -> list[float | None]:
    """What a sweeper is told: a number, nan for a job that gave none although others did, None where nothing was asked
    for.
    """
    asked = any(row.objective is not None for row in rows)
    return [
        row.objective if row.objective is not None or (not asked and row.status == "ok") else math.nan for row in rows
    ]


def _last_line(job: Job) -> str:
    try:
        lines = (job.directory / CONSOLE).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return f"; its last words: {lines[-1].strip()[:200]}" if lines else ""
