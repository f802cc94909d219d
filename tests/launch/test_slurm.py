"""Jobs for Slurm, run by submitit's local executor: tasks see what srun would tell them; pre-emption saves, queues again and resumes."""

import json
import os
import sys
import time
from pathlib import Path

from alignlab.launch.environment import Launch, launch
from alignlab.launch.slurm import SlurmTask, executor
from alignlab.launch.sweep import Job
from tiny_run import REPOSITORY

import pytest

submitit = pytest.importorskip("submitit")
from submitit.local.local import LocalJobEnvironment  # noqa: E402

PROGRAM = [str(REPOSITORY / "tests" / "support" / "tiny_program.py")]


def submit(folder: Path, what: str, tasks: int = 1) -> tuple[Job, "submitit.Job"]:
    job = Job(0, (f"do={what}",), folder / "0")
    local = executor("local", folder / "submitit", {"timeout_min": 5, "tasks_per_node": tasks}, 3)
    return job, local.submit(SlurmTask(job, PROGRAM, str(folder)))


def result(job: Job) -> dict:
    return json.loads((job.directory / "result.json").read_text())


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def test_tasks_are_ranks_as_under_srun(tmp_path: Path) -> None:
    job, submitted = submit(tmp_path, "end", tasks=2)
    assert submitted.results() == [0, 0]
    seen = result(job)["seen"]
    assert launch(seen) == Launch("slurm", int(seen["SLURM_PROCID"]), 2, 1, 0)
    assert seen["SLURM_NTASKS_PER_NODE"] == "2"
    assert (job.directory / "console.log").read_text() == (job.directory / "console_1.log").read_text() == "a word\n"


def test_a_preempted_job_saves_and_goes_on(tmp_path: Path) -> None:
    job, submitted = submit(tmp_path, "wait")
    while not (job.directory / "began").exists():
        time.sleep(0.05)
    (task,) = [pid for pid in children(submitted._process.pid) if "submitit.core._submit" in command_of(pid)]
    os.kill(task, LocalJobEnvironment._usr_sig())  # to the task, as from Slurm, not to submitit's controller
    assert submitted.results() == [0]
    assert result(job)["resumed"] and result(job)["status"] == "ok"


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"hydra/launcher=slurm: .*srun"):
        executor("slurm", tmp_path, {}, 1)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ValueError, match=r"pip install 'alignlab\[slurm\]'"):
        executor("slurm", tmp_path, {}, 1)
