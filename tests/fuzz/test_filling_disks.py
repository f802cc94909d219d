"""20 disks that fill up or fail at some byte of a run, from a seed: one line, exit code 1, nothing lost; then the run goes on.

python -m pytest tests/fuzz/test_filling_disks.py -m slow
"""

import errno
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from alignlab.launch.environment import of_one_process
from running import TRAIN, result_of
from tiny_run import REPOSITORY, TINY

import pytest
import torch

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")]
SEED = int(os.environ.get("ALIGNLAB_SEED", "0"))
WORDS = (*TINY, "trainer.max_steps=6", "callbacks.checkpoint.every_n_steps=2", "trainer.val_check_interval=2")
CODES = {errno.ENOSPC: "no space is left", errno.EDQUOT: "quota", errno.EIO: "EIO"}


def run(words: tuple[str, ...], cwd: Path, **faults: str) -> subprocess.CompletedProcess:
    environment = of_one_process() | {"PYTHONPATH": str(REPOSITORY / "src")} | faults
    command = [sys.executable, TRAIN, *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("library") / "faulty_disk.so"
    source = REPOSITORY / "tests" / "support" / "faulty_disk.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", file, source, "-ldl"], check=True)
    return str(file)


@pytest.fixture(scope="module")
def bytes_written(tmp_path_factory: pytest.TempPathFactory) -> int:
    """About so many in a whole run."""
    folder = tmp_path_factory.mktemp("whole")
    assert run((*WORDS, f"hydra.run.dir={folder / 'run'}"), folder).returncode == 0
    return 2 * sum(file.stat().st_size for file in (folder / "run").rglob("*") if file.is_file())


@pytest.mark.parametrize("number", range(20))
def test_one_line_and_then_on(number: int, library: str, bytes_written: int, tmp_path: Path) -> None:
    dice = random.Random(f"{SEED} {number}")
    code = dice.choice(list(CODES))
    after = number * 500 if number < 4 else dice.randrange(bytes_written)  # the first at the very start
    folder, began = tmp_path / "run", time.monotonic()
    done = run(
        (*WORDS, f"hydra.run.dir={folder}"),
        tmp_path,
        LD_PRELOAD=library,
        FAULT=str(code),
        FAULT_AFTER=str(after),
        FAULT_PATH=str(folder),
    )
    assert time.monotonic() - began < 120
    if done.returncode != 0:
        said = [line for line in done.stderr.split("\n") if line.startswith("error: ")]
        assert done.returncode == 1 and len(said) == 1, f"{CODES[code]} after {after}: {done.stderr[-2000:]}"
        assert CODES[code] in said[0] or ("full or faulty" in said[0] and "Traceback" not in done.stderr)
        assert str(folder) in said[0]
        for file in (folder / "checkpoints").glob("step-*.ckpt"):
            torch.load(file, weights_only=True)  # what has a name is whole
        if "resume=" in said[0]:
            again = run((f"resume={folder}",), tmp_path)
        else:
            again = run((*WORDS, f"hydra.run.dir={tmp_path / 'again'}"), tmp_path)
            folder = tmp_path / "again"
        assert again.returncode == 0, again.stderr[-2000:]
    assert (result_of(folder)["status"], result_of(folder)["steps"]) == ("ok", 6)
