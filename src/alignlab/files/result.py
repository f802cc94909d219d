"""result.json: what a run came to."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

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
    world_size: int = 1

    def write(self, run_dir: Path) -> None:
        """Writes result.json; numbers that aren't finite become null."""
        values = asdict(self)
        values["metrics"] = {name: _finite(value) for name, value in sorted(self.metrics.items())}
        values["objective"] = _finite(self.objective)
        write_text(run_dir / "result.json", json.dumps(values, indent=2, allow_nan=False) + "\n")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
