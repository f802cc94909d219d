"""Runs jobs as processes of this machine, some at a time; none of them outlives the program that started it."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from alignlab.launch.environment import of_one_process
from alignlab.launch.signals import Inbox, Interrupted
from alignlab.launch.sweep import CONSOLE, Job

LOOK = 0.2  # seconds between two looks
LEFTOVERS = 5.0  # seconds that further ranks have to end after rank zero

_DIE_WITH_PARENT = 1  # Linux' PR_SET_PDEATHSIG
_libc = ctypes.CDLL(None)


@dataclass
class Running:
    """A job's process: the leader of a session of its own, so that Ctrl-C in the terminal reaches it through the sweep
    alone.
    """

    job: Job
    slot: int
    process: subprocess.Popen
    began: float = field(default_factory=time.monotonic)
    stopped: bool = False


def run_jobs(
    jobs: Iterable[Job],
    program: Sequence[str],
    ended: Callable[[Running, int], None],
    begun: Callable[[Job], None],
    n_jobs: int = 1,
    gpus_per_job: int | None = None,
) -> None:
    """Runs `program` with each job's arguments, `n_jobs` at a time; output goes to console.log of its directory.

    A signal to this process is passed on to the jobs, which save and end; those not begun are left out. A second
    Ctrl-C kills them.

    Raises:
        Interrupted: after all jobs have ended, if a signal asked for it.
    """
    waiting, slots = iter(jobs), set(range(n_jobs))
    running: list[Running] = []
    with Inbox() as inbox:
        inbox.deferred = True
        try:
            while True:
                while slots and not inbox.received and (job := next(waiting, None)) is not None:
                    begun(job)
                    slot = min(slots)
                    slots.discard(slot)
                    running.append(Running(job, slot, start(job, program, _environment(slot, gpus_per_job))))
                if not running:
                    break
                if inbox.received:
                    _pass_on(running, inbox.received)
                time.sleep(LOOK)
                for each in [each for each in running if each.process.poll() is not None]:
                    running.remove(each)
                    slots.add(each.slot)
                    _sweep_up(each.process)
                    ended(each, each.process.returncode)
        finally:
            for each in running:  # an error of this program, or Ctrl-C twice
                _kill(each.process)
        if inbox.received:
            raise Interrupted(inbox.received)


def run_in_turn(command: Sequence[str], inbox: Inbox) -> int:
    """Runs a program to its end; its output is this one's. A signal that the inbox gets is passed on and the program
    waited for.

    Args:
        inbox: open, and deferring signals.
    Returns:
        The exit code; negative: a signal's number.
    """
    process = subprocess.Popen(
        command,
        env=of_one_process(),
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C in the terminal reaches it through this program alone
        preexec_fn=die_with_parent,
    )
    told = False
    try:
        while process.poll() is None:
            if inbox.received and not told:
                told = True
                with suppress(ProcessLookupError):
                    process.send_signal(inbox.received)
            time.sleep(LOOK)
        _sweep_up(process)
    finally:  # an error of this program, or Ctrl-C twice
        _kill(process)
    return process.returncode


def this_program() -> list[str]:
    """The command that has started this process, without its arguments."""
    spec = sys.modules["__main__"].__spec__
    return [sys.executable, *([str(Path(sys.argv[0]).resolve())] if spec is None else ["-m", spec.name])]


def _environment(slot: int, gpus: int | None) -> dict[str, str]:
    env = of_one_process()
    if gpus is not None:
        visible = env.get("CUDA_VISIBLE_DEVICES", "")
        devices = visible.split(",") if visible else [str(number) for number in range((slot + 1) * gpus)]
        mine = devices[slot * gpus : (slot + 1) * gpus]
        if len(mine) < gpus:
            raise ValueError(
                f"hydra.launcher.gpus_per_job={gpus}: CUDA_VISIBLE_DEVICES={visible} isn't enough for {slot + 1} jobs "
                "at a time"
            )
        env["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
    return env


def start(job: Job, program: Sequence[str], env: Mapping[str, str], cwd: Path | None = None) -> subprocess.Popen:
    """Begins a job, or goes on with it where its directory holds a run."""
    with (job.directory / CONSOLE).open("ab") as console:
        return subprocess.Popen(
            [*program, *job.arguments()],
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


def die_with_parent() -> None:
    """For a child process, before it runs its program; Linux: SIGTERM, thus an orderly end, when its parent is gone,
    however it went.
    """
    with suppress(AttributeError):
        _libc.prctl(_DIE_WITH_PARENT, signal.SIGTERM)


def _pass_on(running: Sequence[Running], number: int) -> None:
    for each in running:
        if not each.stopped:
            each.stopped = True
            with suppress(ProcessLookupError):
                each.process.send_signal(number)


def _sweep_up(process: subprocess.Popen) -> None:
    """Further ranks of a job whose rank zero has ended: they get a moment, then nobody is left."""
    deadline = time.monotonic() + LEFTOVERS
    with suppress(ProcessLookupError, PermissionError):
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(LOOK)
    _kill(process)


def _kill(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
