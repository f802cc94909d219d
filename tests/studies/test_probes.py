"""Probes with programs whose speed and stability are known, and once with train.py."""

import json
from pathlib import Path

from alignlab.cli import main
from alignlab.files.result import Result
from alignlab.studies.probes.batch import Measured, advice, recommended, sizes
from alignlab.studies.probes.runs import Run
from alignlab.studies.probes.stability import judged
from alignlab.studies.reading.tables import Logged
from tiny_run import REPOSITORY, TINY

import numpy as np
import pytest

TINY_PROBE = str(REPOSITORY / "tests" / "support" / "tiny_probe.py")


@pytest.mark.distributed
def test_the_batch_is_one_that_was_measured(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["probe", "batch", "--program", TINY_PROBE, "--output", str(tmp_path), "--smallest", "16"]) == 0
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["recommended"] == 64 and [run["size"] for run in told["runs"]] == [16, 32, 64, 128, 256]
    assert "use a batch of 64" in capsys.readouterr().out
    words = ["probe", "batch", "slow_data=1", "--program", TINY_PROBE, "--smallest", "256", "--output", str(tmp_path)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "512 runs out of memory; 256 is the largest that was seen to fit" in said and "50% of the time" in said
    assert main(["probe", "batch", "unknown=1", "--program", TINY_PROBE]) == 2
    assert capsys.readouterr().err == "error: unknown: unknown key\n"


@pytest.mark.distributed
def test_rates_break_where_they_break(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["probe", "stability", "--program", TINY_PROBE, "--output", str(tmp_path), "--steps", "150"]) == 0
    told = json.loads((tmp_path / "report.json").read_text())
    assert [run["verdict"] for run in told["runs"]] == ["stable", "breaks later", "breaks early", "breaks early"]
    said = capsys.readouterr().out
    assert "Breaks at 0.002" in said and "Clip at 9" in said and "cuts 100% of the steps" in said
    assert "at most 100 (a tenth of the run)" in said


def test_sizes_and_advice() -> None:
    assert sizes(8, 64) == [8, 16, 32, 64] and sizes(8, 100) == [8, 16, 32, 64]
    with pytest.raises(ValueError, match="largest=4 not below it"):
        sizes(8, 4)
    growing = [Measured(8, "ok", 100.0), Measured(16, "ok", 199.0)]
    assert recommended(growing).size == 16 and "still grows" in " ".join(advice(growing))


@pytest.mark.parametrize("kind", ["stable", "breaks early", "breaks later"])
def test_shapes_of_losses(kind: str) -> None:
    for seed in range(20):
        random = np.random.default_rng(seed)
        t = np.linspace(0, 1, 100)
        loss = 2 * np.exp(-3 * t) + 1 + random.normal(0, 0.1, 100)
        if kind != "stable":
            begins = 0.2 if kind == "breaks early" else 0.6
            loss += 8 * np.clip(t - begins, 0, None)
        elif seed % 2:
            loss[50] += 5  # a spike that it comes back from
        run = Run("ok", None, Result("ok", steps=100), Logged({"train/loss": list(enumerate(loss))}))
        assert judged(1e-3, run, 100).verdict == kind, seed


@pytest.mark.slow
def test_with_the_training_program(tmp_path: Path) -> None:
    words = [word for word in TINY if not word.startswith(("data.batch_size", "debug"))]
    program = ["--program", str(REPOSITORY / "train.py")]
    given = [*words, *program, "--steps", "8", "--output", str(tmp_path / "batch")]
    assert main(["probe", "batch", *given, "--smallest", "4", "--largest", "8"]) == 0
    told = json.loads((tmp_path / "batch" / "report.json").read_text())
    assert all(run["samples_per_second"] > 0 and run["wait"] is not None for run in told["runs"])
    given = [*words, *program, "--steps", "6", "--output", str(tmp_path / "stability")]
    assert main(["probe", "stability", *given]) == 0
    told = json.loads((tmp_path / "stability" / "report.json").read_text())
    assert len(told["runs"]) == 4 and len(told["runs"][0]["norms"]) >= 5
