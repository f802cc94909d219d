"""A full disk, really: a file system of a megabyte, or the limit on the size of files where none can be mounted."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from alignlab.launch import disk
from alignlab.runs import train as run
from tiny_run import TINY

import pytest
import torch
from omegaconf import DictConfig

LIMITED = """
import resource, sys, torch
from pathlib import Path
from alignlab.launch import disk
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    torch.save(torch.zeros(100_000), sys.argv[1])
except Exception as error:
    print(type(disk.explained(error, Path("."))).__name__)
"""


def test_a_full_disk_is_recognised_and_leaves_room_for_the_reason(small_disk: Callable[[str], Path]) -> None:
    folder = small_disk("1m")
    disk.keep_room(folder)
    for write in (
        lambda: (folder / "a").write_bytes(b"x" * 2**21),
        lambda: torch.save(torch.zeros(2**19), folder / "b"),
    ):
        with pytest.raises((OSError, RuntimeError)) as caught:
            write()
        assert isinstance(disk.explained(caught.value, folder), disk.DiskFull)
    with pytest.raises(OSError):
        (folder / "reason").write_text("x" * 1000)
    disk.give_room(folder)
    (folder / "reason").write_text("x" * 100_000)


def test_files_that_may_not_grow(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path / "a")], capture_output=True, text=True)
    assert done.stdout == "DiskFull\n", done.stderr


def test_causes_are_followed_and_others_left_alone(tmp_path: Path) -> None:
    wrapped = RuntimeError("saving failed")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device", "/x/last.ckpt")
    said = f"{tmp_path} can't be written to: no space is left (writing /x/last.ckpt). Make room and"
    assert str(disk.explained(wrapped, tmp_path)) == f"{said} start again"
    (tmp_path / "config.yaml").touch()
    assert str(disk.explained(wrapped, tmp_path)) == f"{said} go on with resume={tmp_path}"
    for other in (OSError(errno.ENOENT, "No such file"), RuntimeError("shapes differ"), KeyError("x")):
        assert disk.explained(other, Path("/x")) is other


def test_a_run_says_so(prepared: Callable[..., DictConfig], small_disk: Callable[[str], Path]) -> None:
    folder = small_disk("2m")
    with pytest.raises(disk.DiskFull, match=r"can't be written to: .* Make room and go on with resume="):
        run.train(prepared(folder, *TINY))
    result = json.loads((folder / "result.json").read_text())
    assert (result["status"], result["steps"]) == ("failed", 2) and result["reason"].startswith("DiskFull: ")
    assert "Traceback" in (folder / "train.log").read_text()


def test_the_last_good_checkpoint_stays(prepared: Callable[..., DictConfig], small_disk: Callable[[str], Path]) -> None:
    folder = small_disk("64m")
    overrides = [*TINY, "logger.csv=null", "callbacks.curves=null"]
    run.train(prepared(folder, *overrides, "trainer.max_steps=2"))
    before = (folder / "checkpoints" / "last.ckpt").read_bytes()
    filler = folder / "filler"
    with pytest.raises(OSError), filler.open("wb") as file:
        while True:
            file.write(b"x" * 4096)
            file.flush()
    os.truncate(filler, filler.stat().st_size - 2 * disk.ROOM)
    with pytest.raises(disk.DiskFull):
        run.train(prepared(folder, *overrides, "trainer.max_steps=4", f"resume={folder}"))
    assert json.loads((folder / "result.json").read_text())["status"] == "failed"
    assert (folder / "checkpoints" / "last.ckpt").read_bytes() == before
    filler.unlink()
    assert run.train(prepared(folder, *overrides, "trainer.max_steps=4", f"resume={folder}")).status == "ok"
