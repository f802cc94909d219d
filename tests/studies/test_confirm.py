"""Confirming a study's best settings: intervals against known truths, and real runs of both."""

import json
from pathlib import Path

from alignlab.cli import main
from alignlab.studies.confirm import baseline_of, judged
from alignlab.studies.design.declaration import Metric
from planted import world

import numpy as np
import pytest

LOSS, SCORE = Metric("val/loss", "min"), Metric("val/score", "max")


def test_intervals_by_hand() -> None:
    said = judged([1.0, 1.2, 1.1], [1.5, 1.6, 1.7], LOSS)  # gaps -0.5, -0.4, -0.6: mean -0.5, sd 0.1, t(2) = 4.303
    assert said.paired and said.says == "adopt"
    assert (said.difference, said.low, said.high) == pytest.approx((-0.5, -0.5 - 0.24843, -0.5 + 0.24843), abs=1e-4)
    assert judged([1.0, 1.2, 1.1], [1.5, 1.6, 1.7], SCORE).says == "don't"
    assert judged([1.0, 1.2, 1.7], [1.5, 1.1, 1.6], LOSS).says == "not distinguishable"
    welch = judged([1.0, 1.2, 1.1, 1.05], [1.5, 1.6, np.nan, 1.7], LOSS)
    assert not welch.paired and welch.says == "adopt"
    assert judged([1.0, np.nan], [2.0, 2.0], LOSS).says == "not distinguishable"


def test_equal_settings_are_seldom_adopted() -> None:
    random = np.random.default_rng(0)
    said = [judged(*random.normal(1, 0.1, (2, 5)), LOSS).says for _ in range(1000)]
    assert said.count("adopt") + said.count("don't") < 80
    better = [judged(random.normal(1, 0.1, 5), random.normal(1.4, 0.1, 5), LOSS).says for _ in range(200)]
    assert better.count("adopt") > 180


def test_the_baseline_is_the_best_of_another_setting() -> None:
    data = world(3, offsets={"a": 0.0, "b": 0.2}).data()
    assert data.feasible[0].point["net.kind"] == "a" and baseline_of(data, None).point["net.kind"] == "b"
    assert baseline_of(data, 7).trial == 7
    with pytest.raises(ValueError, match="trial 99 has no value"):
        baseline_of(data, 99)


@pytest.mark.slow
@pytest.mark.distributed
def test_runs_with_other_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """A study of two trials by `tiny_study.py`, whose loss doesn't depend on the seed: the interval has no width."""
    import subprocess
    import sys

    from tiny_run import REPOSITORY

    monkeypatch.chdir(tmp_path)
    program = str(REPOSITORY / "tests" / "support" / "tiny_study.py")
    words = ["-m", "study=clip_learning_rate", "hydra.sweeper.trials=4", "hydra.sweep.dir=study"]
    subprocess.run([sys.executable, program, *words], check=False, capture_output=True)
    file = tmp_path / "study" / "study.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps(told | {"program": [sys.executable, program]}))  # it has recorded its trials' program
    assert main(["study", "confirm", "study", "-n", "2"]) == 0
    assert "adopt: the incumbent differs" in capsys.readouterr().out
    kept = json.loads((tmp_path / "study" / "confirm" / "confirm.json").read_text())
    assert kept["verdict"] == "adopt" and len(kept["baseline"]["values"]) == 2 and kept["difference"] < 0
    began = (tmp_path / "began.txt").read_text()
    assert main(["study", "confirm", "study", "-n", "2"]) == 0
    assert (tmp_path / "began.txt").read_text() == began, "runs that are there aren't done again"
