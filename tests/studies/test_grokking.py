"""Runs that know their training data long before others: told apart from runs that overfit, and never called done."""

from pathlib import Path

from alignlab.cli import main
from alignlab.studies import advice
from alignlab.studies.grokking import grokking
from alignlab.studies.reading import directories
from alignlab.studies.reading.tables import Logged, logged

import numpy as np
import pytest
import yaml

STEPS = np.arange(0, 4001, 50)
KINDS = ("grokked", "memorised", "together", "overfits", "neither learns")


def curves(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy on training data and on others."""
    random = np.random.default_rng([seed, KINDS.index(kind)])

    def rise(at: float, width: float) -> np.ndarray:
        return 1 / (1 + np.exp(-(STEPS - at) / width)) - 1 / (1 + np.exp(at / width))

    at, late = random.uniform(150, 300), random.uniform(1500, 3000)
    train = rise(at, 40) if kind != "neither learns" else rise(at, 40) * 0.3
    held = {
        "grokked": rise(late, 200),
        "memorised": rise(at, 40) * 0.08,
        "together": rise(at * 1.3, 60),
        "overfits": rise(at, 40) * 0.6 - 0.15 * STEPS / STEPS[-1],
        "neither learns": rise(at, 40) * 0.25,
    }[kind]
    return tuple(np.clip(each + random.normal(0, 0.01, len(STEPS)), 0, 1) for each in (train, held))


def run(folder: Path, kind: str, seed: int, norm: bool | None = None) -> Path:
    train, held = curves(kind, seed)
    weights = np.linspace(60, 30, len(STEPS)) if norm else np.full(len(STEPS), 60.0)
    folder.mkdir(parents=True)
    head = "step,train/accuracy,val/accuracy" + (",train/weight_norm" if norm is not None else "")
    rows = [
        f"{step},{a},{b}" + (f",{w}" if norm is not None else "")
        for step, a, b, w in zip(STEPS, train, held, weights, strict=True)
    ]
    (folder / "metrics.csv").write_text("\n".join([head, *rows]) + "\n")
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_run_is(tmp_path: Path, kind: str) -> None:
    for seed in range(20):
        said = grokking(logged(run(tmp_path / str(seed), kind, seed)))
        assert said.state == (kind if kind in ("grokked", "memorised") else "neither"), (seed, said)
        if kind == "grokked":
            assert said.known_at < 700 < 1500 < said.risen_at


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["scaling", "grokking", str(run(tmp_path / "a", "grokked", 0))]) == 0
    assert "times as late" in capsys.readouterr().out
    assert main(["scaling", "grokking", str(run(tmp_path / "b", "memorised", 0, norm=True))]) == 0
    assert "still falls" in capsys.readouterr().out
    assert main(["scaling", "grokking", str(tmp_path / "a"), "--train", "train/acc", "--val", "val/accuracy"]) == 2
    error = capsys.readouterr().err
    assert "train/acc" in error and "train/accuracy" in error and error.count("\n") == 1
    assert main(["scaling", "grokking", str(tmp_path / "nothing")]) == 2
    assert grokking(Logged()) is None


def codes(folder: Path, kind: str, norm: bool | None) -> list[str]:
    """What a sweep of such runs is told."""
    for seed in range(8):
        job = run(folder / str(seed), kind, seed, norm)
        (job / ".hydra").mkdir()
        (job / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump([f"lr={seed + 1}"]))
    data = directories.read(folder, "val/accuracy", "max")
    return [finding.code for finding in advice.of_the_best(data, advice.of_trials(data))]


@pytest.mark.parametrize(("norm", "said"), [(None, True), (True, True), (False, False)])
def test_nobody_is_told_to_shorten_what_may_still_come(tmp_path: Path, norm: bool | None, said: bool) -> None:
    told = codes(tmp_path / "m", "memorised", norm)
    assert ("memorised" in told) == said
    assert not said or not {"saturated", "max_steps_too_many"} & set(told)
    together = codes(tmp_path / "t", "together", norm)
    assert "saturated" in together and "memorised" not in together
