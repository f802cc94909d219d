"""Terminals that fail: closed, full, ASCII; and too few open files."""

import os
import resource
import subprocess
import sys
from pathlib import Path

from alignlab.runs.errors import WorkerDied, cause

import pytest

SAYS = """
import os, sys
from alignlab.launch import streams
streams.speak_utf8()
streams.make_lasting()
for _ in range(3):
    print("K\\u00e4se \\U0001F9C0 \\udcfc", flush=True)
open("made", "w").close()
fd = os.open("file", os.O_CREAT | os.O_WRONLY)
print("done", os.fsdecode(b"\\xc3\\xbc") == "\\u00fc", fd > 2, file=sys.stderr)
"""
LIMITED = """
import sys
from alignlab.launch.open_files import provide
try:
    provide(int(sys.argv[1]))
    print("enough")
except ValueError as error:
    print(error)
"""


def said(folder: Path, redirection: str = "", **env: str) -> subprocess.CompletedProcess:
    command = f"exec '{sys.executable}' -c '{SAYS}' {redirection}"
    return subprocess.run(["sh", "-c", command], cwd=folder, env=os.environ | env, capture_output=True)


def test_output_that_fails_ends_nothing(tmp_path: Path) -> None:
    full = said(tmp_path, "> /dev/full")
    assert full.returncode == 0 and (tmp_path / "made").exists()
    lost, done = full.stderr.decode().splitlines()
    assert lost == "standard output can't be written to (No space left on device); the run goes on without it"
    assert done == "done True True"
    for redirection in (">&-", ">&- 2>&-", "<&- >&- 2>&-", "2> /dev/full"):
        assert said(tmp_path, redirection).returncode == 0, redirection
    piped = said(tmp_path, "| true")
    assert piped.returncode == 0 and (tmp_path / "file").read_bytes() == b""


def test_an_ascii_locale_prints_what_it_can(tmp_path: Path) -> None:
    posix = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for env in (posix, {"PYTHONIOENCODING": "ascii"}):
        done = said(tmp_path, **env)
        assert done.stdout.splitlines() == [rb"K\xe4se \U0001f9c0 \udcfc"] * 3, env
        assert done.stderr == b"done True True\n", "names of files are UTF-8"


@pytest.mark.parametrize(
    ("soft", "hard", "workers", "expected"),
    [
        (
            24,
            24,
            2,
            "num_workers=2 needs about 112 open files, and this process may have 24: raise the limit (ulimit -n 112)",
        ),
        (24, 4096, 2, "enough"),
        (24, 24, 0, "enough"),
    ],
)
def test_open_files(soft: int, hard: int, workers: int, expected: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(workers)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)),
    )
    assert done.stdout.startswith(expected), done.stderr


def test_a_data_worker_that_has_gone_is_a_line() -> None:
    killed = "DataLoader worker (pid 41) is killed by signal: Killed. "
    for message, expected in (
        (killed, "data worker 41 was killed (Killed; out of memory?); resume=... goes on, "),
        ("DataLoader worker (pid(s) 41, 42) exited unexpectedly", "data worker 41, 42 has ended without a word; "),
    ):
        found = cause(RuntimeError(message))
        assert isinstance(found, WorkerDied) and str(found).startswith(expected)
    other = RuntimeError("shapes differ")
    assert cause(other) is other
