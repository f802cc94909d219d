"""Temporary folders of killed processes go; those of living ones, forked ones too, and of others stay."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from alignlab.data.flat_rows import FlatRows
from alignlab.data.temporary import temporary_folder

import pytest

SLEEPER = """
import sys, time
from alignlab.data.temporary import temporary_folder
folder, remove = temporary_folder("rows")
(folder / "rows").write_text("much")
print(folder, flush=True)
time.sleep(60)
"""


@pytest.mark.distributed
def test_a_killed_process_leaves_nothing_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    started = [subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        killed, alive = (Path(process.stdout.readline().strip()) for process in started)
        started[0].send_signal(signal.SIGKILL)
        started[0].wait()
        (tmp_path / "alignlab-others").mkdir()
        assert killed.is_dir() and alive.is_dir()
        rows = FlatRows([1, 2])
        assert not killed.exists() and (alive / "rows").read_text() == "much" and rows[1] == 2
        assert (tmp_path / "alignlab-others").is_dir()
    finally:
        for process in started:
            process.kill()
            process.wait()
    del rows
    assert not list(tmp_path.glob("alignlab-rows-*/rows"))[1:]


def test_what_this_process_or_its_children_hold_stays(tmp_path: Path) -> None:
    mine, remove = temporary_folder("rows", str(tmp_path))
    other, remove_other = temporary_folder("pictures", str(tmp_path))
    assert mine.is_dir() and other.is_dir()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # holds its parent's lock as long as it lives
        os.read(read, 1)
        os._exit(0)
    remove_other()
    assert mine.is_dir() and not other.exists()
    os.write(write, b"x")
    os.waitpid(child, 0)
    remove()
    assert list(tmp_path.iterdir()) == []
