"""result.json: what a run came to."""

import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal, Self

from alignlab.files.writing import write_text

Status = Literal["ok", "diverged", "failed", "interrupted"]


@dataclass
class Result:
    """What a run came to; one field a key of result.json."""

    status: Status = "failed"
    reason: str | None = None
    notes: list[str] = field(default_factory=list)  # what happened besides: an unreadable checkpoint, steps taken back
    objective: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0  # of the whole run, from building the data on
    samples_per_second: float | None = None  # of training alone, over all ranks
    peak_memory_bytes: int = 0
    seed: int = 0
    git_revision: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    plugins: dict[str, dict[str, str | None]] = field(default_factory=dict)  # name -> as given, version, sha256
    corpora: dict[str, dict] = field(default_factory=dict)  # data -> what its cleaning left (docs/corpus.md)
    world_size: int = 1
    parameters: int | None = None  # of the net, trained or not

    @classmethod
    def read(cls, run_dir: Path) -> Self | None:
        """What a run has left; None if there is no result.json or none that can be read.

        Numbers that weren't finite are left out.
        """
        try:
            values = json.loads((run_dir / "result.json").read_text(encoding="utf-8"))
            known = {each.name: values[each.name] for each in fields(cls) if each.name in values}
            metrics = known.get("metrics", {}).items()
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return None
        known["metrics"] = {name: value for name, value in metrics if value is not None}
        return cls(**known)

    def write(self, run_dir: Path) -> None:
        """Writes result.json; numbers that aren't finite become null."""
        values = asdict(self)
        values["metrics"] = {name: _finite(value) for name, value in sorted(self.metrics.items())}
        values["objective"] = _finite(self.objective)
        write_text(run_dir / "result.json", json.dumps(values, indent=2, allow_nan=False) + "\n")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
