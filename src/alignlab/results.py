"""result.json of a run directory, the numbers in it, and the table at the end of a run."""

import json
import math
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

PACKAGES = ("alignlab", "torch", "torchvision", "lightning", "timm", "transformers", "tokenizers", "hydra-core")
Status = Literal["ok", "diverged", "failed", "interrupted"]


class Diverged(Exception):
    """Training has come to numbers that aren't finite, or to spikes that don't end; the message says where and when."""


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


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._started


def write_text(file: Path, text: str) -> None:
    """Writes under a temporary name and renames: nobody ever sees half a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, file)
    except OSError:  # a full disk
        temporary.unlink(missing_ok=True)
        raise


def write_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Has `write` fill a folder under a temporary name and renames it; one that is there already is replaced."""
    temporary, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("tmp", "old"))
    for rest in (temporary, old):
        shutil.rmtree(rest, ignore_errors=True)
    temporary.mkdir(parents=True)
    write(temporary)
    if folder.exists():
        os.replace(folder, old)
    os.replace(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)


def peak_memory_bytes() -> int:
    """The most that was allocated on the GPU, or the most resident memory of this process where there is none."""
    import torch  # here, so that a config error is recorded without it

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_revision() -> str | None:
    """Revision of the working tree, with `-dirty` if it has changes; None outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def show(result: Result, run_dir: Path, log: str = "train.log", unit: str = "steps") -> None:
    """Prints the metrics as a table, and where the run's files are; the same goes to the log."""
    from rich.console import Console
    from rich.table import Table

    table = Table("metric", "value", title=f"{result.status} after {result.steps} {unit}, {result.seconds:.0f} s")
    table.columns[1].justify = "right"
    for name, value in sorted(result.metrics.items()):
        table.add_row(name, f"{value:.4g}")
    files = sorted(file for file in (run_dir / "samples").glob("*") if not file.name.startswith("."))
    with (run_dir / log).open("a", encoding="utf-8") as log_file:
        for target in (sys.stdout, log_file):
            console = Console(file=target, soft_wrap=True, highlight=False)
            console.print(table)
            console.print(f"run directory  {_short(run_dir)}")
            for file in files:
                console.print(
                    f"picture        {_short(file)}" if file.suffix == ".png" else f"sample         {_short(file)}"
                )


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
