"""Jobs as processes: some at a time, failures beside successes, a stop that loses nothing."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from alignlab.launch.processes import Running, run_jobs
from alignlab.launch.signals import Interrupted
from alignlab.launch.sweep import Job, Row, finished
from tiny_run import REPOSITORY

import pytest

pytestmark = pytest.mark.distributed

PROGRAM = [sys.executable, str(REPOSITORY / "tests" / "support" / "tiny_program.py")]


def jobs(directory: Path, *what: str) -> list[Job]:
    return [Job(number, (f"do={each}",), directory / str(number)) for number, each in enumerate(what)]


def run(todo: list[Job], **settings: int) -> dict[int, Row]:
    rows: dict[int, Row] = {}

    def ended(each: Running, code: int) -> None:
        rows[each.job.number] = finished(each.job, code, 0.1, each.stopped)

    run_jobs(todo, PROGRAM, ended, lambda job: job.directory.mkdir(exist_ok=True), **settings)
    return rows


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_job_that_fails_is_a_row(tmp_path: Path) -> None:
    rows = run(jobs(tmp_path, "end", "crash", "kill", "end"))
    assert [rows[number].status for number in range(4)] == ["ok", "failed", "failed", "ok"]
    assert rows[1].reason == "it ended with exit code 1; its last words: RuntimeError: crashed"
    assert rows[2].reason.startswith("killed by SIGKILL")


def test_some_at_a_time_each_with_its_own_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    monkeypatch.setenv("LOCAL_RANK", "1")
    todo = jobs(tmp_path, *["end"] * 4)
    assert len(run(todo, n_jobs=2, gpus_per_job=2)) == 4
    seen = [json.loads((job.directory / "result.json").read_text())["seen"] for job in todo]
    assert {each["CUDA_VISIBLE_DEVICES"] for each in seen} == {"4,5", "6,7"}
    assert not any("LOCAL_RANK" in each for each in seen)
    with pytest.raises(ValueError, match="isn't enough for 3 jobs"):
        run(jobs(tmp_path, *["wait"] * 3), n_jobs=3, gpus_per_job=2)


def test_nobody_is_left_of_a_job(tmp_path: Path) -> None:
    (todo,) = jobs(tmp_path, "leave_a_rank")
    assert run([todo])[0].status == "ok"
    rank, deadline = int((todo.directory / "rank").read_text()), time.monotonic() + 5
    while alive(rank):  # killed, not yet gone
        assert time.monotonic() < deadline


def test_ctrl_c_lets_jobs_save_and_leaves_out_the_rest(tmp_path: Path) -> None:
    todo = jobs(tmp_path, "wait", "wait", "end")

    def interrupt() -> None:
        while not all((job.directory / "began").exists() for job in todo[:2]):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    rows: list[str] = []
    with pytest.raises(Interrupted):
        run_jobs(
            todo,
            PROGRAM,
            lambda each, code: rows.append(finished(each.job, code, 0.1, each.stopped).status),
            lambda job: job.directory.mkdir(),
            n_jobs=2,
        )
    assert rows == ["interrupted", "interrupted"]
    assert all(job.checkpoint.exists() for job in todo[:2]) and not todo[2].directory.exists()


def test_jobs_end_with_a_sweep_that_is_killed(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; sys.path[:0] = sys.argv[2:]\n"
    code += "from test_processes import jobs, run; run(jobs(Path(sys.argv[1]), 'wait'))\n"
    sweep = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent), *sys.path])
    while not (tmp_path / "0" / "began").exists():
        time.sleep(0.05)
    sweep.kill()
    sweep.wait()
    deadline = time.monotonic() + 20
    while not (tmp_path / "0" / "result.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
