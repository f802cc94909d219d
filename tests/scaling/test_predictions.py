"""A prediction is frozen before the run and scored after it; the page in a browser.

python tests/scaling/test_predictions.py     # how often a prediction holds
"""

import json
import shutil
import subprocess
from pathlib import Path

import schaeffer
from alignlab.cli import main
from alignlab.scaling.curve import Curve
from alignlab.scaling.fits import expected
from alignlab.scaling.metrics import METRICS

import numpy as np
import pytest


@pytest.fixture
def ladder(tmp_path: Path) -> tuple[Path, Path]:
    """Five models of a smooth ladder, and a sixth that comes later."""
    rates = tuple(0.2 + 0.12 * place for place in range(6))
    folder = schaeffer.ladder(tmp_path / "ladder", length=6, items=300, seed=1, rates=rates)
    (folder / "size_5").rename(tmp_path / "later")
    return folder, tmp_path / "later"


def test_frozen_then_scored(ladder: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder, later = ladder
    file = tmp_path / "told" / "prediction.json"
    size = 1e5 * 4**5
    words = ["scaling", "predict", str(folder), "--to", str(size), "--output", str(file)]
    words += ["--metric", "token_accuracy", "edit_distance"]
    assert main(words) == 0
    told = json.loads(file.read_text())
    assert len(told["inputs"]) == 5 and told["x"] == size and told["written"] and len(told["from"]) == 5
    for each in told["predictions"]:
        assert each["low"] <= each["value"] <= each["high"] and each["fit"]["law"] == each["law"]
    accuracy = next(each for each in told["predictions"] if each["metric"] == "token_accuracy")
    assert accuracy["value"] == pytest.approx(0.8, abs=0.03) and accuracy["high"] - accuracy["low"] < 0.15
    assert main(words) == 2  # never anew
    assert "isn't written anew" in capsys.readouterr().err
    assert main(["scaling", "score", str(file), str(later)]) == 0
    assert "inside" in capsys.readouterr().out
    scored = json.loads((tmp_path / "told" / "prediction.scored.json").read_text())
    assert scored["of"] == 2 and scored["inside"] == 2 and not scored["notes"]
    row = next(each for each in scored["rows"] if each["metric"] == "token_accuracy")
    assert row["error"] == pytest.approx(row["actual"] - row["value"])


def coverage(seeds: int, names: tuple[str, ...]) -> dict[str, float]:
    """How often the sixth model of a ladder lies in the interval that five foretell; a token's chance grows evenly."""
    inside = dict.fromkeys(names, 0)
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        rates, x = np.linspace(0.2, 0.8, 6)[:, None], 1e5 * 4.0 ** np.arange(6)
        chance = 1 / (1 + np.exp(-(np.log(rates / (1 - rates)) + random.normal(0, 0.3, 300))))
        right = random.binomial(6, chance)
        for name in names:
            items = {"token_accuracy": right / 6, "edit_distance": 6.0 - right, "exact_match": (right == 6) * 1.0}[name]
            five = items[:5]
            curve = Curve("t", METRICS[name], x[:5], five.mean(1), np.full(5, 300), tuple("abcde"), five)
            told = expected(curve, float(x[5]))
            inside[name] += told.low <= items[5].mean() <= told.high
    return {name: count / seeds for name, count in inside.items()}


def test_intervals_hold_what_they_promise() -> None:
    assert coverage(16, ("token_accuracy",))["token_accuracy"] >= 14 / 16


def test_what_cant_be_foretold_or_scored(
    ladder: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder, later = ladder
    file = tmp_path / "prediction.json"
    assert main(["scaling", "predict", str(folder), "--to", "5e6", "--output", str(file)]) == 2
    assert "beyond the largest model" in capsys.readouterr().err and not file.exists()
    assert main(["scaling", "predict", str(folder), "--to", "1e9", "--output", str(file)]) == 0
    assert main(["scaling", "score", str(file), str(later)]) == 2
    assert "foretells a model of 1e+09" in capsys.readouterr().err
    (tmp_path / "other.json").write_text('{"x": 3}')
    assert main(["scaling", "score", str(tmp_path / "other.json"), str(later)]) == 2
    assert "is no prediction" in capsys.readouterr().err
    for place in (2, 3, 4):
        shutil.rmtree(folder / f"size_{place}")
    assert main(["scaling", "predict", str(folder), "--to", "1e9", "--output", str(tmp_path / "p")]) == 2
    assert "2 sizes are too few" in capsys.readouterr().err


def test_inputs_that_have_changed_are_named(
    ladder: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder, later = ladder
    file = tmp_path / "prediction.json"
    words = [
        "scaling",
        "predict",
        str(folder),
        "--to",
        str(1e5 * 4**5),
        "--output",
        str(file),
        "--metric",
        "exact_match",
    ]
    assert main(words) == 0
    items = folder / "size_3" / "items.jsonl"
    items.write_text(items.read_text() + "\n")
    capsys.readouterr()
    assert main(["scaling", "score", str(file), str(later)]) == 0
    assert f"{items} has changed since the prediction was made" in capsys.readouterr().out


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    schaeffer.ladder(folder / "ladder", items=120)
    assert main(["scaling", "report", str(folder / "ladder"), "--output", str(folder / "told")]) == 0
    return folder / "told" / "report.html"


def test_the_page(page: Path) -> None:
    text = page.read_text()
    assert text.count("<figure>") == 5 and "metric artefact" in text and "amid the jump" in text
    assert "http" not in text.replace("http-equiv", ""), "nothing comes from elsewhere"
    assert (page.parent / "digits.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", [[], ["--force-dark-mode"]])
def test_a_browser_shows_it(page: Path, width: int, scheme: list[str]) -> None:
    """No error on the console, a figure a metric, nothing wider than the window."""
    browser = shutil.which("chromium") or pytest.skip("needs chromium")
    probe = page.parent / "probe.html"
    asked = "document.title=[document.documentElement.scrollWidth,innerWidth,document.querySelectorAll('figure svg').length]"
    probe.write_text(page.read_text().replace("</body>", f"<script>{asked}</script></body>"))
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},900"]
    command += [*scheme, "--enable-logging=stderr", "--dump-dom", probe.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    scrolled, inner, figures = map(int, done.stdout.partition("<title>")[2].partition("<")[0].split(","))
    assert scrolled <= inner and figures == 5 and "CONSOLE" not in done.stderr


if __name__ == "__main__":
    for metric, share in coverage(80, ("token_accuracy", "edit_distance", "exact_match")).items():
        print(f"{metric}: {share:.0%} of 80 inside")
