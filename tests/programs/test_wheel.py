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


def installed(tmp_path: Path) -> tuple[Path, Path]:
    """Where the wheel's files lie, and an empty working directory."""
    site, here = tmp_path / "site", tmp_path / "here"
    here.mkdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    source = tmp_path / "source"  # a copy without build/, which setuptools would take stale files from
    for folder in ("src", "conf", "template"):
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
    return site, here


@pytest.mark.distributed
def test_a_wheel_trains_and_infers_in_an_empty_directory(tmp_path: Path) -> None:
    site, here = installed(tmp_path)
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


@pytest.mark.slow
def test_a_project_of_ones_own_trains_from_the_wheel(tmp_path: Path) -> None:
    """docs/own_parts.md as typed: `alignlab new`, its run, its tests, a run directory opened again."""
    site, here = installed(tmp_path)
    command = [sys.executable, str(site / "bin" / "alignlab")]
    made = run([*command, "new", "my_project"], here, site)
    assert made.returncode == 0, made.stderr
    project = here / "my_project"
    own = ["train", "plugins=my_project", "experiment=my_project"]
    done = run([*command, *own, "trainer.max_steps=4", "trainer.val_check_interval=2"], project, site)
    assert done.returncode == 0, done.stderr[-2000:]
    (result,) = project.glob("outputs/my_project/*/result.json")
    assert json.loads(result.read_text())["plugins"]["my_project"]["version"] == "0.1.0"
    assert (result.parent / "best_loss.json").is_file()
    asked = run([*command, "train", f"resume={result.parent}"], project, site)
    assert asked.returncode == 2 and asked.stderr.count("plugins=[my_project]") == 1, asked.stderr[-2000:]
    more = run(
        [*command, "train", f"resume={result.parent}", "plugins=my_project", "trainer.max_steps=6"], project, site
    )
    assert more.returncode == 0, more.stderr[-2000:]
    tested = run([sys.executable, "-m", "pytest", "-q"], project, site)
    assert tested.returncode == 0, tested.stdout[-2000:]
