"""One run a directory: a lock file with the process that writes there, and a judgement whether that process still
lives.

`filelock` isn't as good here: the kernel's lock is inherited by data loading workers, which hold it for seconds after
their run was killed, and network file systems may not have it; and who holds the directory, a heartbeat and Slurm's
job number need a file of their own anyway.
"""

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FILE = ".lock"
HEARTBEAT = 30.0  # seconds between two signs of life
STALE = 600.0  # seconds without one, after which the process of another machine counts as dead

_held: set[Path] = set()  # by this process


class Busy(ValueError):
    """Another run writes to the directory."""


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Keeps other runs out of a directory while the block runs.

    Raises:
        Busy: one is there. A lock whose process is gone is taken over: its pid is dead on this machine or was given to
            another program, or it is another machine's and gave no sign of life for ten minutes, or it is of this
            Slurm job.
    """
    directory = directory.resolve()
    if directory in _held:
        yield
        return
    directory.mkdir(parents=True, exist_ok=True)
    _take(directory)
    _held.add(directory)
    done = threading.Event()
    threading.Thread(target=_beat, args=(directory / FILE, done), daemon=True, name="run-lock").start()
    try:
        yield
    finally:
        done.set()
        _held.discard(directory)
        (directory / FILE).unlink(missing_ok=True)


def refuse_if_busy(directory: Path) -> None:
    """Raises `Busy` if another run holds the directory; touches nothing."""
    owner = _owner(directory / FILE)
    if directory.resolve() not in _held and owner is not None and _lives(owner, directory / FILE):
        raise _busy(directory, owner)


def of_this_launch(directory: Path) -> bool:
    """Whether a task of the same Slurm step as this process holds the directory."""
    owner, job = _owner(directory / FILE), os.environ.get("SLURM_JOB_ID")
    return owner is not None and job is not None and _place(owner) == (job, os.environ.get("SLURM_STEP_ID"))


def _place(owner: dict) -> tuple[object, object]:
    return owner.get("slurm_job"), owner.get("slurm_step")


def _take(directory: Path) -> None:
    """Looks and writes in one go: the kernel's lock on the file keeps two takers of a stale lock apart."""
    file = directory / FILE
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            with suppress(OSError):  # file systems without such locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not file.exists() or os.stat(file).st_ino != os.fstat(descriptor).st_ino:
                continue  # its owner has removed it meanwhile
            owner = _owner(file)
            if owner is not None and _lives(owner, file):
                raise _busy(directory, owner)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, (json.dumps(_myself()) + "\n").encode())
            return
        finally:
            os.close(descriptor)


def _myself() -> dict[str, object]:
    job, step = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_STEP_ID")
    who = {"pid": os.getpid(), "host": socket.gethostname(), "started": _started(os.getpid())}
    return who | {"slurm_job": job, "slurm_step": step}


def _owner(file: Path) -> dict | None:
    try:
        owner = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none, or one that was cut off while it was written
        return None
    return owner if isinstance(owner, dict) and isinstance(owner.get("pid"), int) else None


def _lives(owner: dict, file: Path) -> bool:
    if owner.get("host") == socket.gethostname():
        return _started(owner["pid"]) == owner.get("started") if owner.get("started") else _exists(owner["pid"])
    job = os.environ.get("SLURM_JOB_ID")
    if job is not None and owner.get("slurm_job") == job:
        return False  # this job's life before it was requeued, on another node
    try:
        age = time.time() - file.stat().st_mtime
        return age < STALE if age > -STALE else _beats(file)
    except FileNotFoundError:
        return False


def _beats(file: Path) -> bool:
    """Whether a lock whose clock lies in the future gives a sign of life, which is waited for."""
    before, until = file.stat().st_mtime_ns, time.monotonic() + 1.5 * HEARTBEAT
    while time.monotonic() < until:
        time.sleep(min(1.0, HEARTBEAT / 10))
        if file.stat().st_mtime_ns != before:
            return True
    return False


def _busy(directory: Path, owner: dict) -> Busy:
    where = "" if owner["host"] == socket.gethostname() else f" on {owner['host']}"
    return Busy(
        f"{directory} is in use by process {owner['pid']}{where}; "
        f"stop that run or choose another directory (hydra.run.dir=...)"
    )


def _started(pid: int) -> int | None:
    """When a process began, in the kernel's ticks: tells it from a later one with the same number. None where that
    can't be told.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _beat(file: Path, done: threading.Event) -> None:
    while not done.wait(HEARTBEAT):
        with suppress(OSError):
            os.utime(file)
