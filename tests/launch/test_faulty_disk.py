"""A disk that fails in other ways than by being full, and file systems that can do less: by a library that is preloaded."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from alignlab.launch.environment import of_one_process
from tiny_run import REPOSITORY

import pytest

SUPPORT = REPOSITORY / "tests" / "support"
pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("library") / "faulty_disk.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", file, SUPPORT / "faulty_disk.c", "-ldl"], check=True)
    return str(file)


def told(library: str, folder: Path, **faults: str) -> list[str]:
    environment = of_one_process() | {"LD_PRELOAD": library, "PYTHONPATH": f"{REPOSITORY / 'src'}:{SUPPORT}"} | faults
    command = [sys.executable, str(SUPPORT / "disk_writers.py"), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.split("\n") if line]


def test_every_writer_says_what_the_disk_said(library: str, tmp_path: Path) -> None:
    lines = told(library, tmp_path, FAULT_PATH=str(tmp_path), FAULT_AFTER="0")
    assert len(lines) == 12, lines
    for line in lines:
        name, code, rest = line.split(" ", 2)
        assert rest.startswith(f"DiskFull: {tmp_path} can't be written to: "), line
        lost = "the disk is full or faulty" in rest  # torch's own writer loses the reason
        wanted = {"ENOSPC": "no space is left", "EIO": "reports an error (EIO)", "EDQUOT": "the quota is used up"}[code]
        assert wanted in rest or (lost and name == "torch"), line
        assert ("Make room" in rest) == (lost or code != "EIO"), line
        assert rest.endswith("and start again"), f"there is nothing to resume: {line}"


def test_a_file_system_without_links(library: str, tmp_path: Path) -> None:
    assert told(library, tmp_path, FAULT_NO_LINKS="1") == ["{'last': 3, 'best': 2} best.ckpt False"]
    index = json.loads((tmp_path / "checkpoints" / "index.json").read_text())
    assert [entry["step"] for entry in index] == [2, 3]


def test_a_full_standard_output_is_not_the_run_directory(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from alignlab.launch import disk\n"
        "try: print('x' * 10_000, flush=True)\n"
        "except OSError as error: print(disk.explained(error, Path(sys.argv[1])), file=sys.stderr); import os; os._exit(0)"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )
    assert done.stderr.strip() == "standard output can't be written to: no space is left"
