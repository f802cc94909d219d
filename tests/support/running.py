"""Training programs of the tests: started, watched until they train, and their ranks found."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from alignlab.launch.environment import of_one_process
from tiny_run import REPOSITORY, TINY

TRAIN = str(REPOSITORY / "train.py")
ENDLESS = (*TINY, "trainer.max_steps=100000", "trainer.val_check_interval=null")
MINUTE = 60.0
PATIENCE = 300.0  # seconds that a busy machine may take to start two processes


def start(*command: str, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen:
    """A Python program in a session of its own, its output in `cwd`/console.log."""
    with (cwd / "console.log").open("ab") as console:
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=cwd,
            env=of_one_process() | dict(env or {}),
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def until(happened: Callable[[], object], *processes: subprocess.Popen, seconds: float = PATIENCE) -> object:
    """Waits for something true while all processes run."""
    deadline = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < deadline, "it took too long"
        assert all(process.poll() is None for process in processes), "it ended too early"
        time.sleep(0.1)
    return found


def trains(run_dir: Path) -> bool:
    """Whether some steps are done."""
    file = run_dir / "metrics.csv"
    return file.exists() and file.read_text().count("\n") > 3


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def result_of(run_dir: Path) -> dict:
    return json.loads((run_dir / "result.json").read_text())


def of_rank(rank: int, variable: str, word: str) -> int | None:
    """The process whose environment says that it is this rank and whose command line holds a word."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environ, command = (folder / "environ").read_bytes(), (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if (
            f"{variable}={rank}".encode() in environ.split(b"\0")
            and word.encode() in command
            and alive(int(folder.name))
        ):
            return int(folder.name)
    return None


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent doesn't."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def end(*processes: subprocess.Popen) -> None:
    """Kills what is left of the sessions."""
    for process in processes:
        try:
            os.killpg(process.pid, 9)
        except ProcessLookupError:
            continue
        process.wait()
