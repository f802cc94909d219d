"""The wheel is all that a project of one's own needs: `alignlab train` in an empty directory, no checkout."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tiny_run import REPOSITORY, TINY

import pytest

MODULE = """
def short(prompts, responses):
    return [-float(len(response)) for response in responses]
"""


def run(words: list[str], folder: Path, site: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(site)}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.distributed
def test_a_wheel_trains_and_infers_in_an_empty_directory(tmp_path: Path) -> None:
    site, here = tmp_path / "site", tmp_path / "here"
    here.mkdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    source = tmp_path / "source"  # a copy without build/, which setuptools would take stale files from
    for folder in ("src", "conf"):
        cached = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(REPOSITORY / folder, source / folder, symlinks=True, ignore=cached)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    for words in (
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(source)],
        [*pip, "install", "--no-deps", "--target", str(site), str(tmp_path / "alignlab-0.1.0-py3-none-any.whl")],
    ):
        done = run(words, tmp_path, site)
        assert done.returncode == 0, done.stderr
    command = [sys.executable, str(site / "bin" / "alignlab")]
    where = run([sys.executable, "-c", "import alignlab; print(alignlab.__file__)"], here, site).stdout
    assert where.startswith(str(site))
    done = run([*command, "train", *TINY, "trainer=ddp", "trainer.max_steps=2", "run_name=mine"], here, site)
    assert done.returncode == 0, done.stderr[-2000:]
    (result,) = here.glob("outputs/mine/*/result.json")
    assert json.loads(result.read_text())["world_size"] == 2
    (here / "my_reward.py").write_text(MODULE)
    shown = run(
        [*command, "train", "model=ppo", "model.net.path=x", "model.reward=my_reward.short", "--cfg", "job"], here, site
    )
    assert shown.returncode == 0 and "reward: my_reward.short" in shown.stdout, shown.stderr
    asked = run([*command, "infer", "task=generate", "model=./nowhere", "prompt_text=hi"], here, site)
    assert asked.returncode == 2 and "./nowhere: there is no such folder" in asked.stderr, asked.stderr[-2000:]
