"""What a run directory says, read as data: it may be anybody's, and half written."""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from alignlab.files.foreign_yaml import yaml_text
from alignlab.files.leaves import leaves
from alignlab.files.result import Result

MOST_ROWS = 200_000  # of metrics.csv
MOST_LISTED = 40  # rows of a table of samples


@dataclass
class RunRecord:
    """One run directory's files."""

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    result: Result | None = None
    rows: list[dict[str, float]] = field(default_factory=list)  # of metrics.csv
    command: list[str] = field(default_factory=list)  # words that were typed
    warnings: list[str] = field(default_factory=list)

    @property
    def settings(self) -> dict[str, Any]:
        """The config by dotted keys."""
        return {key: value for key, value in leaves(self.config) if key}

    @property
    def name(self) -> str:
        """The last two parts of its path."""
        return "/".join(self.folder.resolve().parts[-2:])


def read_run(folder: Path) -> RunRecord:
    """A run directory; what isn't there or can't be read is left empty.

    Raises:
        ValueError: it holds no config of a run.
    """
    if not (folder / "config.yaml").is_file():
        raise ValueError(f"{folder} is no run directory: there is no config.yaml")
    config = yaml.safe_load(yaml_text(folder / "config.yaml"))
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict | None):
        raise ValueError(f"{folder}/config.yaml is no config of a training run")
    record = RunRecord(folder, config, Result.read(folder), list(_rows(folder / "metrics.csv")))
    with suppress(ValueError):
        words = yaml.safe_load(yaml_text(folder / ".hydra" / "overrides.yaml"))
        record.command = [str(word).lstrip("+") for word in words] if isinstance(words, list) else []
    with suppress(OSError):
        log = (folder / "train.log").read_text(encoding="utf-8", errors="replace").splitlines()
        record.warnings = [line.partition("[WARNING] - ")[2] for line in log if "[WARNING] - " in line][:MOST_LISTED]
    return record


def runs_below(places: Sequence[Path]) -> list[RunRecord]:
    """The runs of these directories: each one itself, or those in it (`outputs/clip` holds one a time of day).

    Raises:
        ValueError: there is none.
    """
    records = []
    for place in places:
        inner = [place] if (place / "config.yaml").is_file() else sorted(f.parent for f in place.glob("*/config.yaml"))
        inner = inner or sorted(f.parent for f in place.glob("*/*/config.yaml"))
        for folder in inner:
            with suppress(ValueError):  # of an inference run, a chain
                record = read_run(folder)
                if record.rows or record.result is not None:
                    records.append(record)
    if not records:
        raise ValueError(f"no run with results in {', '.join(map(str, places))}")
    return records


def table_of(file: Path) -> list[dict[str, Any]]:
    """The first rows of a file of JSON lines; none of one that can't be read."""
    rows = []
    with suppress(OSError, ValueError), file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if len(rows) == MOST_LISTED:
                break
            row = json.loads(line)
            rows += [row] if isinstance(row, dict) else []
    return rows


def _rows(file: Path) -> Iterator[dict[str, float]]:
    with suppress(OSError, csv.Error), file.open(encoding="utf-8", errors="replace", newline="") as lines:
        for number, row in enumerate(csv.DictReader(lines)):
            if number == MOST_ROWS:
                return
            read = {str(name): value for name, text in row.items() if (value := _number(text)) is not None}
            if "step" in read:
                yield read


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
