"""Rows of a sweep: what became of a job, kept and read again; a job's command line and directory."""

import csv
import json
import math
import signal
from pathlib import Path

from alignlab.launch.sweep import CONSOLE, Job, Row, Sweep, finished, objectives, prepared

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser


def job(directory: Path, number: int = 0, *overrides: str) -> Job:
    return Job(number, overrides or ("optim.lr=0.1",), directory / str(number))


def write_result(of: Job, **values: object) -> None:
    of.directory.mkdir(parents=True, exist_ok=True)
    given = {"status": "ok", "reason": None, "objective": 1.5, "steps": 7, "seconds": 3.0} | values
    (of.directory / "result.json").write_text(json.dumps(given))


@pytest.mark.parametrize("name", ["plain", "a b=c,d", "it's", "back\\slash"])
def test_a_directory_survives_hydras_grammar(tmp_path: Path, name: str) -> None:
    this = job(tmp_path / name)
    this.checkpoint.parent.mkdir(parents=True)
    this.checkpoint.touch()
    parsed = {o.key_or_group: o.value() for o in OverridesParser.create().parse_overrides(this.arguments())}
    assert parsed["hydra.run.dir"] == parsed["resume"] == str(this.directory)
    this.checkpoint.unlink()
    assert "resume" not in " ".join(this.arguments()[:-2]) and len(this.arguments()) == 3


def test_what_became_of_a_job(tmp_path: Path) -> None:
    this = job(tmp_path)
    write_result(this)
    assert finished(this, 0, 99.0) == Row(0, "optim.lr=0.1", "ok", None, 1.5, 7, 3.0, str(this.directory))
    assert finished(this, -signal.SIGSEGV, 9).reason == "after result.json: killed by SIGSEGV"
    write_result(this, status="diverged", reason="train/loss is nan", objective=None)
    assert finished(this, 0, 9).status == "diverged"
    (this.directory / "result.json").unlink()
    (this.directory / CONSOLE).write_text("something\nMemoryError: too much\n")
    killed = finished(this, -signal.SIGKILL, 9.04)
    assert (killed.status, killed.seconds) == ("failed", 9.0)
    assert killed.reason == "killed by SIGKILL (out of memory?); its last words: MemoryError: too much"
    assert finished(this, -signal.SIGTERM, 9, stopped=True).status == "interrupted"


def test_rows_are_kept_in_both_files(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    sweep = Sweep(tmp_path)
    for number in (1, 0):
        this = job(tmp_path, number, "model=clip", f"seed={number}")
        write_result(this, objective=None if number else 0.25)
        sweep.add(finished(this, 0, 1.0))
    assert Sweep.read(tmp_path).rows == sweep.rows
    with (tmp_path / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["job"] for row in rows] == ["0", "1"] and [row["objective"] for row in rows] == ["0.25", ""]
    sweep.show()
    shown = capsys.readouterr().out
    assert "2 of 2 ok" in shown and "seed=1" in shown and "model=clip" not in shown, "what all rows share isn't shown"


def test_objectives_for_a_sweeper(tmp_path: Path) -> None:
    def row(status: str, objective: float | None) -> Row:
        return Row(0, "", status, None, objective, 0, 0.0, "")

    assert objectives([row("ok", None), row("ok", None)]) == [None, None]
    first, second = objectives([row("ok", 2.0), row("failed", None)])
    assert first == 2.0 and math.isnan(second)
    assert math.isnan(objectives([row("diverged", None)])[0])


def test_a_directory_is_gone_on_with_or_put_aside(tmp_path: Path) -> None:
    this = job(tmp_path)
    prepared(this, None)
    write_result(this, status="interrupted")
    (this.directory / "metrics.csv").touch()
    prepared(this, finished(this, 143, 1.0))
    assert (this.directory / "metrics.csv").exists() and not (this.directory / "result.json").exists()
    other = Job(0, ("optim.lr=0.2",), this.directory)
    write_result(this, status="interrupted")
    prepared(other, finished(this, 143, 1.0))
    assert list(this.directory.iterdir()) == [], "a run of another command is never gone on with"
    assert (tmp_path / "0.1" / "metrics.csv").exists(), "nor deleted"


@pytest.mark.parametrize("content", ["[{", '[{"job": 1}]', "3"])
def test_a_damaged_table_is_set_aside(tmp_path: Path, content: str, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "sweep.json").write_text(content)
    assert Sweep.read(tmp_path).rows == {}
    assert (tmp_path / "sweep.json.damaged").read_text() == content
    assert "sweep.json can't be read; it is now sweep.json.damaged" in capsys.readouterr().err
