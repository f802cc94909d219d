"""For tests: jobs on the pretend device and what they noted. Imports neither torch nor the device."""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pretend_cuda import stub
from pretend_cuda.allowed import ALLOWED, Allowed
from pretend_cuda.log import COPY, REFUSED, WAITING

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
SUPPORT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Job:
    """A run of train.py with these overrides; or `call`, "module:function", which gets a folder and `arguments` and enters the device itself.

    The folder is beside those of the other jobs of the same `results`, and named like the job: `{jobs}/name` in overrides is another job's.
    """

    name: str
    overrides: tuple[str, ...] = ()
    call: str | None = None
    arguments: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """Something that was noted, with its count."""

    phase: str
    kind: str
    what: str
    where: str
    count: int

    def __str__(self) -> str:
        return f"{self.count} x in a {self.phase}: {self.kind}: {self.what}  @ {self.where}"


@dataclass(frozen=True)
class Found:
    """What a job gave, or its error, and what the device noted."""

    value: object
    error: str | None
    rows: list[Row]

    def waits(self, *phases: str) -> list[Row]:
        """Where the host waits for the device, blocking copies to it included; in some phases or in all."""
        return [row for row in self.rows if row.kind in WAITING and (not phases or row.phase in phases)]

    def refused(self) -> list[Row]:
        """What a real device would refuse or get wrong."""
        return [row for row in self.rows if row.kind in REFUSED]

    def copies(self, *phases: str) -> list[Row]:
        """Copies that nobody waits for."""
        return [row for row in self.rows if row.kind == COPY and (not phases or row.phase in phases)]

    def unlisted(self, allowed: Sequence[Allowed] = ALLOWED) -> list[Row]:
        """Waits that the list doesn't allow."""
        return [
            row for row in self.waits() if not any(entry.covers(row.phase, row.what, row.where) for entry in allowed)
        ]


def none(rows: Sequence[Row]) -> None:
    """Fails with what was noted, if anything was."""
    if rows:
        pytest.fail("\n".join(map(str, rows)), pytrace=False)


def results(jobs: Sequence[Job], factory: pytest.TempPathFactory) -> dict[str, Found]:
    """Runs jobs one after the other in one process and gives what they found, by name; skips where there is no compiler.

    Of several processes of pytest the first to come runs them, the others wait for what it finds.
    """
    shared = factory.getbasetemp()
    shared = shared.parent if shared.name.startswith("popen-") else shared
    try:
        stub.compiled()
    except OSError as error:
        pytest.skip(f"the pretend device needs a C++ compiler: {error}")
    key = hashlib.sha256(json.dumps([asdict(job) for job in jobs], sort_keys=True).encode()).hexdigest()[:16]
    folder = shared / f"pretend-cuda-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    files = {job.name: folder / f"{job.name}.json" for job in jobs}
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not all(file.exists() for file in files.values()):
            _run(jobs, folder, files)
    found = {name: json.loads(file.read_text()) for name, file in files.items()}
    return {name: Found(x["value"], x["error"], [Row(*row) for row in x["rows"]]) for name, x in found.items()}


def _run(jobs: Sequence[Job], folder: Path, files: dict[str, Path]) -> None:
    listed = []
    for job in jobs:
        shutil.rmtree(folder / job.name, ignore_errors=True)
        overrides = [override.replace("{jobs}", str(folder)) for override in job.overrides]
        listed.append(asdict(job) | {"folder": str(folder / job.name), "file": str(files[job.name])})
        listed[-1]["overrides"] = overrides
    (folder / "jobs.json").write_text(json.dumps(listed))
    paths = [str(REPOSITORY / "src"), str(SUPPORT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pretend_cuda.worker", str(folder / "jobs.json")]
    with (folder / "log").open("w") as log:
        ended = subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=subprocess.STDOUT)
    if missing := [name for name, file in files.items() if not file.exists()]:
        tail = (folder / "log").read_text()[-2000:]
        raise RuntimeError(f"the process ended with {ended.returncode} before {', '.join(missing)}:\n{tail}")
