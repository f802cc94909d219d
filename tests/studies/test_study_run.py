"""A study through train.py -m: rows of every kind of end, kill -9 and again, refusals before anything begins."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from alignlab.launch.environment import of_one_process
from running import end, start, until
from tiny_run import REPOSITORY

import pytest

pytestmark = pytest.mark.distributed
PROGRAM = str(REPOSITORY / "tests" / "support" / "tiny_study.py")
WORDS = ("-m", "study=clip_learning_rate", "hydra.launcher.n_jobs=2")
STUDY = Path("outputs") / "studies" / "clip_learning_rate"


def study(cwd: Path, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, PROGRAM, *WORDS, *words]
    return subprocess.run(command, cwd=cwd, env=of_one_process(), capture_output=True, text=True, timeout=200)


def lines(cwd: Path) -> list[dict]:
    file = cwd / STUDY / "trials.jsonl"
    return [json.loads(line) for line in file.read_text().split("\n")[:-1]] if file.exists() else []


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A study of eight whose program was killed after some trials, and the same command again."""
    cwd = tmp_path_factory.mktemp("study")
    first = start(PROGRAM, *WORDS, "hydra.sweeper.trials=8", cwd=cwd, env={"TRIAL_SECONDS": "0.4"})
    try:
        until(lambda: len(lines(cwd)) >= 3, first, seconds=120)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    finally:
        end(first)
    with (cwd / STUDY / "trials.jsonl").open("a") as file:
        file.write('{"trial": 7, "point": {"opt')  # as if in the midst of a line
    (cwd / "before.json").write_text(json.dumps(lines(cwd)))
    again = study(cwd, "hydra.sweeper.trials=8")
    assert again.returncode == 0, again.stderr
    return cwd


def test_no_trial_is_lost_or_done_twice(killed: Path) -> None:
    before, rows = json.loads((killed / "before.json").read_text()), lines(killed)
    assert rows[: len(before)] == before, "lines are added and never changed"
    ended = [row["trial"] for row in rows if row["status"] != "interrupted"]
    assert sorted(ended) == list(range(8))
    began = [line.split() for line in (killed / "began.txt").read_text().splitlines()]
    again = [number for number, _ in began if [n for n, _ in began].count(number) > 1]
    assert not {row["trial"] for row in before if row["status"] != "interrupted"} & set(map(int, again))


def test_every_end_is_a_row_with_its_reason(killed: Path) -> None:
    rows = {row["trial"]: row for row in lines(killed)}
    for row in rows.values():
        rate, decay = row["point"]["optim.lr"], row["point"]["optim.weight_decay"]
        expected = "failed" if decay < 4e-3 else "infeasible" if rate > 3e-3 else "ok"
        assert row["status"] == expected, row
        if expected == "ok":
            assert row["value"] == pytest.approx(min(float(x.split(",")[1]) for x in curve(killed, row)))
    reasons = " ".join(row["reason"] or "" for row in rows.values())
    assert "diverged: train/loss is nan" in reasons and ("SIGKILL" in reasons or "RuntimeError: crashed" in reasons)


def curve(cwd: Path, row: dict) -> list[str]:
    return (cwd / STUDY / row["directory"] / "metrics.csv").read_text().splitlines()[1:]


def test_more_trials_are_added_and_another_study_is_refused(killed: Path) -> None:
    before = lines(killed)
    other = study(killed, "hydra.sweeper.seed=1")
    assert other.returncode == 2 and "holds another study (seed was 0 and is 1)" in other.stderr
    more = study(killed, "hydra.sweeper.trials=10")
    assert more.returncode == 0 and "10 of 10 trials" in more.stdout
    assert lines(killed)[: len(before)] == before and {row["trial"] for row in lines(killed)} == set(range(10))


def test_a_metric_that_is_never_logged_ends_it_after_the_first(tmp_path: Path) -> None:
    done = study(tmp_path, "hydra.sweeper.metric.name=val/los", "hydra.launcher.n_jobs=1", "hydra.sweeper.trials=2")
    assert done.returncode == 2
    assert "metric val/los was never logged; did you mean val/loss? There are: val/loss" in done.stderr
    assert len((tmp_path / "began.txt").read_text().splitlines()) == 1


def test_refused_before_anything_begins(tmp_path: Path) -> None:
    for words, said in (
        (["optim.momentumm=0.9", "hydra.sweeper.trials=2"], "optim.momentumm: unknown key"),
        (["seed=0,1"], "a study varies what its file says"),
    ):
        done = study(tmp_path, *words)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "began.txt").exists()
