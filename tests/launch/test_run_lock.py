"""One run a directory: who is refused, and which locks are taken over."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from alignlab.launch import run_lock

import pytest

HOLD = """
import sys, time
from pathlib import Path
from alignlab.launch.run_lock import Busy, held
try:
    with held(Path(sys.argv[1])):
        print("held", flush=True)
        time.sleep(float(sys.argv[2]))
except Busy as error:
    print("busy", flush=True)
"""


def holder(directory: Path, seconds: float = 60) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory), str(seconds)], stdout=subprocess.PIPE, text=True
    )


def test_a_living_process_is_respected_and_a_dead_one_is_not(tmp_path: Path) -> None:
    process = holder(tmp_path)
    assert process.stdout.readline() == "held\n"
    for attempt in (lambda: run_lock.refuse_if_busy(tmp_path), run_lock.held(tmp_path).__enter__):
        with pytest.raises(run_lock.Busy, match=rf"{tmp_path} is in use by process {process.pid}; stop that run or "):
            attempt()
    process.send_signal(signal.SIGKILL)
    process.wait()
    run_lock.refuse_if_busy(tmp_path)
    with run_lock.held(tmp_path), run_lock.held(tmp_path):  # the same process may, twice
        assert json.loads((tmp_path / run_lock.FILE).read_text())["pid"] == os.getpid()
    assert not (tmp_path / run_lock.FILE).exists()


def test_only_one_takes_over(tmp_path: Path) -> None:
    (tmp_path / run_lock.FILE).write_text(json.dumps({"pid": 2**22, "host": socket.gethostname(), "started": 1}))
    takers = [holder(tmp_path, 3) for _ in range(6)]
    said = sorted(taker.stdout.readline() for taker in takers)
    assert said == ["busy\n"] * 5 + ["held\n"]
    for taker in takers:
        taker.wait()


@pytest.mark.parametrize(
    ("owner", "minutes", "busy"),
    [
        ({"pid": 1, "host": "elsewhere", "started": 5}, 0, True),
        ({"pid": 1, "host": "elsewhere", "started": 5}, 11, False),  # no sign of life
        ({"pid": 1, "host": "elsewhere", "started": 5, "slurm_job": "9"}, 0, False),  # this job before it was requeued
        ({"pid": os.getpid(), "host": socket.gethostname(), "started": 5}, 0, False),  # another program has its number
        ({}, 0, False),
    ],
)
def test_whose_lock_counts(
    tmp_path: Path, owner: dict, minutes: int, busy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    file = tmp_path / run_lock.FILE
    file.write_text(json.dumps(owner))
    os.utime(file, (0, time.time() - 60 * minutes))
    if busy:
        with pytest.raises(run_lock.Busy, match="process 1 on elsewhere"):
            run_lock.refuse_if_busy(tmp_path)
    else:
        with run_lock.held(tmp_path):
            run_lock.refuse_if_busy(tmp_path)


def test_a_lock_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "HEARTBEAT", 0.05)
    with run_lock.held(tmp_path):
        os.utime(tmp_path / run_lock.FILE, (0, 0))
        time.sleep(0.5)
        assert time.time() - (tmp_path / run_lock.FILE).stat().st_mtime < 10


def test_a_lock_from_the_future_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another machine whose clock went ahead: it lives if it gives a sign of life, whatever its clock says."""
    monkeypatch.setattr(run_lock, "HEARTBEAT", 0.2)
    file, tomorrow = tmp_path / run_lock.FILE, time.time() + 86400
    file.write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    os.utime(file, (tomorrow, tomorrow))
    done = threading.Event()

    def beat() -> None:
        while not done.wait(0.1):
            os.utime(file, ns=(0, file.stat().st_mtime_ns + 1_000_000))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(run_lock.Busy, match="elsewhere"):
            run_lock.refuse_if_busy(tmp_path)
    finally:
        done.set()
        thread.join()
    run_lock.refuse_if_busy(tmp_path)
