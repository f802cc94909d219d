"""`alignlab doctor`: fast, without torch, without the user's home; whether a driver and torch fit is told from the two."""

import json
import os
import subprocess
import sys
from pathlib import Path

from alignlab.tools import doctor

import pytest

H100 = ("NVIDIA H100", "81559 MiB", "570.86.15")
OLD = ("Tesla V100", "16384 MiB", "470.57.02")


@pytest.mark.parametrize(
    ("cuda", "gpus", "value", "problem"),
    [
        ("12.8", [H100], "NVIDIA H100 (81559 MiB); driver 570.86.15; torch is built for CUDA 12.8", None),
        ("12.8", [OLD, OLD], "Tesla V100 (16384 MiB), Tesla V100", "CUDA 12.8 needs driver 525 or later"),
        ("13.0", [H100], "driver 570.86.15", "CUDA 13.0 needs driver 580 or later"),
        (None, [H100], "torch is built for the CPU", "this torch can't use it: install a build for CUDA"),
        ("12.8", [], "none of NVIDIA's is seen; torch is built for CUDA 12.8", None),
    ],
)
def test_driver_and_torch(cuda: str | None, gpus: list, value: str, problem: str | None) -> None:
    found = doctor.fit(cuda, None, gpus)
    assert (
        value in found.value
        and (found.problem is None) == (problem is None)
        and (problem or "") in (found.problem or "")
    )


def test_the_installed_driver_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{', '.join(H100)}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert doctor._gpus() == [H100]
    program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert doctor._gpus() == []


@pytest.mark.distributed
def test_what_is_pasted_says_all_and_names_no_home(tmp_path: Path) -> None:
    code = "import sys; from alignlab.cli import main; code = main(); print('torch' in sys.modules, file=sys.stderr); sys.exit(code)"
    here = os.environ | {
        "HOME": str(tmp_path),
        "HF_HOME": f"{tmp_path}/models",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "C",
    }
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor", "--json"], env=here, cwd=tmp_path, capture_output=True, text=True
    )
    after = os.times()
    assert done.returncode == 0 and done.stderr == "False\n", "torch is not imported"
    assert after.children_user + after.children_system - before.children_user - before.children_system < 2
    rows = {row["topic"]: row for row in json.loads(done.stdout)}
    assert {
        "Python",
        "packages",
        "CPU",
        "GPU",
        "extras there",
        "disk here",
        "temporary files",
        "locale",
        "data workers",
    } <= set(rows)
    assert str(tmp_path) not in done.stdout and "HF_HOME=~/models" in rows["environment"]["value"]
    assert "unset PYTHONDONTWRITEBYTECODE" in rows["environment"]["problem"]
    lacking = [row for topic, row in rows.items() if topic.startswith("extra ")]
    assert all(f"pip install 'alignlab[{row['topic'][6:]}]'" in row["value"] for row in lacking)
    assert {*rows["extras there"]["value"].split(", "), *(row["topic"][6:] for row in lacking)} >= {
        "wandb",
        "rlhf",
        "vllm",
    }
