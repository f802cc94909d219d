"""Runs of train.py, several at once, each with a log and a directory of its own."""

import csv
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from alignlab.files.result import Result

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = float(os.environ.get("ALIGNLAB_GPU_PATIENCE", "1"))  # factor of all limits; set by run.py
PER_CORE = 10 / 16  # runs at a time: ten went well on 16 cores


@dataclass(frozen=True)
class Command:
    """One run: overrides for train.py, or another script that takes them after words of its own."""

    name: str
    overrides: tuple[str, ...]
    limit: float = 90.0  # seconds
    script: tuple[str, ...] = ("train.py",)


@dataclass(frozen=True)
class Done:
    """How it ended: `error` is empty where all went well."""

    seconds: float
    error: str
    folder: Path

    @property
    def result(self) -> Result:
        return Result.read(self.folder)

    def losses(self) -> list[float]:
        """Training losses by step, of metrics.csv."""
        with (self.folder / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        key = next((k for k in ("train/loss", "ppo/policy_loss") if rows and k in rows[0]), None)
        return [float(row[key]) for row in rows if key and row.get(key)]


def at_once() -> int:
    """Runs that this machine's cores allow. OMP_NUM_THREADS doesn't count: it is no limit of theirs."""
    return max(1, round(PER_CORE * len(os.sched_getaffinity(0))))


def run(command: Command, folder: Path) -> Done:
    """One run to its end or limit, in folder/name."""
    there, started = folder / command.name, time.perf_counter()
    words = [sys.executable, *command.script, *command.overrides, f"hydra.run.dir={there}"]
    environment = os.environ | {"OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with (folder / f"{command.name}.log").open("w+") as log:
        try:
            code: int | str = subprocess.run(
                words, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, timeout=command.limit * PATIENCE
            ).returncode
        except subprocess.TimeoutExpired:
            code = f"over {command.limit * PATIENCE:.0f} s"
        log.seek(0)
        lines = [line.strip() for line in log if "rror" in line]
    error = f"exit {code}: {lines[-1][-250:] if lines else ''}" if code else ""
    return Done(round(time.perf_counter() - started, 1), error, there)


def run_all(commands: Sequence[Command], folder: Path, number: int | None = None) -> dict[str, Done]:
    """By name; as many at once as the cores allow."""
    with ThreadPoolExecutor(number or at_once()) as pool:
        return dict(zip([c.name for c in commands], pool.map(lambda c: run(c, folder), commands), strict=True))
