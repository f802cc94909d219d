"""What a Slurm job of a sweep runs: the training program itself in every task, so that every task is a rank.

submitit starts a Python process in each task and would call a function there; Lightning's further ranks then find
submitit in place of the program. Here that process only starts the program, hands signals on, and lets submitit put
the job into the queue again.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignlab.launch.environment import of_one_process
from alignlab.launch.processes import die_with_parent
from alignlab.launch.sweep import CONSOLE, Job

LOOK = 0.2  # seconds between two looks


class SlurmTask:
    """A task of a job; submitit pickles it, calls it, and calls `checkpoint` before the job's time is up or when it is
    preempted.

    Args:
        program: script or `-m module`, after the interpreter.
        begun: whether the job goes on with what is in its directory; the tasks can't look themselves, for the first of
            them writes there while the second looks.
    """

    def __init__(self, job: Job, program: list[str], cwd: str, begun: bool = False) -> None:
        self.job, self.program, self.cwd, self.begun = job, program, cwd, begun

    def __call__(self) -> int:
        """Runs the program to its end; its exit code."""
        import submitit

        place = submitit.JobEnvironment()
        console = self.job.directory / (CONSOLE if place.global_rank == 0 else f"console_{place.global_rank}.log")
        self.job.directory.mkdir(parents=True, exist_ok=True)
        with console.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, *self.program, *self.job.arguments(self.begun)],
                cwd=self.cwd,
                env=task_environment(os.environ, place),
                stdout=file,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )
        signal.signal(
            signal.SIGTERM, lambda number, _: self._process.send_signal(number)
        )  # scancel; submitit would ignore it
        self._code: int | None = None
        threading.Thread(target=self._wait, daemon=True).start()
        while self._code is None:  # not Popen.wait: a signal's handler can't wait inside it
            time.sleep(LOOK)
        return self._code

    def checkpoint(self) -> Any:
        """Has the run save and end; the same task once more, for submitit to put into the queue."""
        import submitit

        self._process.send_signal(signal.SIGTERM)
        while self._code is None:
            time.sleep(LOOK)
        return submitit.helpers.DelayedSubmission(SlurmTask(self.job, self.program, self.cwd, begun=True))

    def _wait(self) -> None:
        self._code = self._process.wait()


def task_environment(env: Mapping[str, str], place: Any) -> dict[str, str]:
    """What srun sets for a task. submitit's local executor has tasks too, but Lightning knows only Slurm's names for
    them.

    Args:
        place: submitit's JobEnvironment.
    """
    if "SLURM_PROCID" in env:
        return dict(env)
    port = 20000 + int(place.raw_job_id) % 20000
    return of_one_process(env) | {
        "SLURM_JOB_ID": str(place.raw_job_id),
        "SLURM_NTASKS": str(place.num_tasks),
        "SLURM_NTASKS_PER_NODE": str(place.num_tasks // place.num_nodes),
        "SLURM_NNODES": str(place.num_nodes),
        "SLURM_NODEID": str(place.node),
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": str(place.num_tasks),
        "SLURM_STEP_NUM_NODES": str(place.num_nodes),
        "SLURM_PROCID": str(place.global_rank),
        "SLURM_LOCALID": str(place.local_rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def executor(cluster: str | None, folder: Path, settings: Mapping[str, Any], max_num_timeout: int) -> Any:
    """A submitit executor.

    Args:
        cluster: `slurm`; `local` runs the jobs here; None: Slurm where it is installed.
        settings: submitit's parameters, e.g. timeout_min, slurm_partition.
    Raises:
        ValueError: submitit or Slurm is missing, or a setting is unknown.
    """
    try:
        import submitit
    except ImportError:
        raise ValueError("hydra/launcher=slurm needs submitit: pip install 'alignlab[slurm]'") from None
    try:
        made = submitit.AutoExecutor(folder, cluster=cluster, slurm_max_num_timeout=max_num_timeout)
        made.update_parameters(**settings)
    except (RuntimeError, NameError, TypeError) as error:
        raise ValueError(f"hydra/launcher=slurm: {error}") from error
    return made
