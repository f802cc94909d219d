"""Gold judge and proxy over KL, planted by arXiv:2210.10760's own law."""

import json
from pathlib import Path

from alignlab.cli import main
from alignlab.scaling.overoptimisation import fitted, law, optimised, read

import numpy as np
import pytest


def runs(folder: Path, beta: float, seeds: int = 3, noise: float = 0.03, most: float = 40.0) -> Path:
    """PPO run directories; the gold turns at exp(1 / beta - 1)^2 nats."""
    for seed in range(seeds):
        random = np.random.default_rng([seed, round(beta * 1000)])
        d = np.sqrt(np.linspace(0, most, 13))
        d[1:] *= random.uniform(0.9, 1.1, 12)
        safe = np.maximum(d, 1e-9)
        proxy = 0.3 + law(safe, 1.0, 0.05) + random.normal(0, noise, 13)
        gold = -0.2 + law(safe, 1.0, beta) + random.normal(0, noise, 13)
        rows = [f"{15 * i},{k},{p},{g}" for i, (k, p, g) in enumerate(zip(d**2, proxy, gold, strict=True))]
        run = folder / str(seed)
        run.mkdir(parents=True)
        (run / "metrics.csv").write_text("\n".join(["step,val/kl,val/score,val/judge", *rows]) + "\n")
    return folder


def test_a_gold_judge_that_turns(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = runs(tmp_path / "ppo", 0.45)
    assert main(["scaling", "overoptimisation", str(folder), "--output", str(tmp_path)]) == 0
    assert "Over-optimised" in capsys.readouterr().out
    told = json.loads((tmp_path / "overoptimisation.json").read_text())
    peak, low, high = told["peak_kl"]
    assert low < np.exp(1 / 0.45 - 1) ** 2 < high and peak == pytest.approx(np.exp(1 / 0.45 - 1) ** 2, rel=0.15)
    assert (tmp_path / "overoptimisation.html").read_text().count("<circle") == 2 * 39


@pytest.mark.parametrize(("beta", "most"), [(0.1, 40.0), (0.45, 6.0)])
def test_one_that_rises_or_hasnt_turned_yet(tmp_path: Path, beta: float, most: float) -> None:
    folder = runs(tmp_path, beta, most=most)
    assert optimised(read(sorted(folder.iterdir()), "val/kl", "val/score", "val/judge")).code == "rising"


def test_too_little_and_too_noisy(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    few = runs(tmp_path / "few", 0.45, seeds=1)
    text = (few / "0" / "metrics.csv").read_text().splitlines()
    (few / "0" / "metrics.csv").write_text("\n".join([*text[:5], "60,nan,nan,nan"]) + "\n")
    assert optimised(read([few / "0"], "val/kl", "val/score", "val/judge")).code == "insufficient"
    wrong = 0
    for seed in range(8):
        noisy = runs(tmp_path / f"noisy{seed}", 0.2 + seed / 1000, seeds=2, noise=3.0)
        wrong += optimised(read(sorted(noisy.iterdir()), "val/kl", "val/score", "val/judge")).code == "overoptimised"
    assert wrong <= 1
    assert main(["scaling", "overoptimisation", str(few), "--gold", "val/gold", "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "val/gold" in error and "val/judge" in error and error.count("\n") == 1


def test_the_fit_is_exact_without_noise() -> None:
    d = np.linspace(0.5, 6, 10)
    assert fitted(d, law(d, 0.7, 0.3)) == pytest.approx((0.7, 0.3))
