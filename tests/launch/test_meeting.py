"""Ranks that wait for each other: they meet, name who is missing after a time, and hear signals meanwhile."""

import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from alignlab.launch.meeting import RankMissing, meet
from running import TRAIN, end, free_port, result_of, start, until
from tiny_run import TINY

import pytest

HOST = "127.0.0.1"


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    for name in ("LOCAL_RANK", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.delenv(name, raising=False)
    return free_port()


def test_all_come_in_any_order(port: int) -> None:
    with ThreadPoolExecutor(3) as ranks:
        waiting = [ranks.submit(meet, rank, 3, HOST, port, 20.0) for rank in (2, 1)]
        time.sleep(0.5)
        meet(0, 3, HOST, port, 20.0)
        for each in waiting:
            each.result()


def test_who_is_missing_is_named_after_the_time(port: int) -> None:
    with pytest.raises(RankMissing, match=rf"^rank 1 of 3 has waited 1 s for rank 0: nothing answers at .*:{port}; "):
        meet(1, 3, HOST, port, 1.0)
    began = time.monotonic()
    with pytest.raises(RankMissing, match=r"^rank 0 of 3 has waited 1 s for ranks 1, 2; "):
        meet(0, 3, HOST, port, 1.0)
    assert time.monotonic() - began < 10


def test_a_child_that_has_ended_is_not_waited_for(port: int) -> None:
    with subprocess.Popen(["false"]) as child, pytest.raises(RankMissing, match=r"rank 1 has ended .* exit code 1"):
        meet(0, 2, HOST, port, 60.0, {1: child})


@pytest.mark.parametrize("rank", [0, 1])
def test_signals_are_heard_meanwhile(port: int, rank: int) -> None:
    class Told(BaseException):
        pass

    def tell(*_: object) -> None:
        raise Told

    before = signal.signal(signal.SIGALRM, tell)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    began = time.monotonic()
    try:
        with pytest.raises(Told):
            meet(rank, 2, HOST, port, 60.0)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 10


def test_a_port_that_is_taken_is_said(port: int) -> None:
    with socket.create_server((HOST, port)), pytest.raises(RankMissing, match=rf"rank 0 can't keep .*:{port} \("):
        meet(0, 2, HOST, port, 5.0)


@pytest.mark.distributed
def test_a_lone_task_of_srun_obeys_a_signal_and_says_what_it_waited_for(tmp_path: Path) -> None:
    env = {"SLURM_JOB_ID": "9", "SLURM_NTASKS": "2", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}
    env |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NNODES": "1"}
    env |= {"MASTER_ADDR": HOST, "MASTER_PORT": str(free_port())}
    task = start(TRAIN, *TINY, "trainer=ddp", f"hydra.run.dir={tmp_path}/run", cwd=tmp_path, env=env)
    try:
        until(lambda: (tmp_path / "run" / "tokenizer").exists(), task)  # the last thing before it waits
        time.sleep(3)
        assert task.poll() is None
        task.send_signal(signal.SIGTERM)
        assert task.wait(20) == 143
    finally:
        end(task)
    assert result_of(tmp_path / "run")["reason"] == "SIGTERM at step 0"
    assert "error: interrupted by SIGTERM" in (tmp_path / "console.log").read_text()
