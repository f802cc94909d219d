"""outputs/<run_name> is the newest run in it, for every kind of run."""

import os
from pathlib import Path

from alignlab.cli import main
from alignlab.files.runs import newest_run
from alignlab.models.language.paths import export_folder
from alignlab.runs.resuming import saved_config

import pytest


def run_in(folder: Path, name: str, age: int, *holds: str) -> Path:
    for inside in holds:
        (folder / name / inside).mkdir(parents=True)
        (folder / name / inside / "file").write_text("{}")
        os.utime(folder / name / inside, (1e9 - age, 1e9 - age))
    return folder / name


def test_the_newest_run_of_a_folder(tmp_path: Path) -> None:
    old = run_in(tmp_path, "slurm_7", 30, "checkpoints", "export")  # the last by name
    new = run_in(tmp_path, "2026-01-02", 20, "checkpoints")
    (tmp_path / "2026-01-03" / "checkpoints").mkdir(parents=True)  # began, and has learned nothing yet
    assert newest_run(tmp_path) == newest_run(tmp_path, holding="checkpoints") == newest_run(new) == new
    assert newest_run(tmp_path, holding="export") == old and export_folder(tmp_path) == old / "export"
    assert newest_run("owner/name") == Path("owner/name") and newest_run(tmp_path / "none") == tmp_path / "none"
    with pytest.raises(ValueError, match=f"no config.yaml; name a run directory, such as the newest in there: {new}"):
        saved_config(tmp_path)


def test_the_best_checkpoint_of_the_newest_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    new = run_in(tmp_path, "a", 0, "checkpoints")
    assert main(["best", str(tmp_path)]) == 2
    assert f"no checkpoint in {new}/checkpoints" in capsys.readouterr().err
