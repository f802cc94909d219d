"""Reports of our studies and of sweeps that others' habits make; the page in a browser."""

import json
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

from alignlab.cli import main
from alignlab.studies.design.declaration import declared
from alignlab.studies.findings import findings
from alignlab.studies.reading import directories
from alignlab.studies.showing import report
from alignlab.studies.showing.drawings import best_within
from alignlab.studies.trials import Record
from planted import KINDS, curves, world

import numpy as np
import pytest
import yaml


def kept(folder: Path, trials: int = 32, mode_of_files: bool = True) -> Path:
    """A planted study as train.py -m leaves it: study.json, trials.jsonl, a directory a trial."""
    this = world(3, offsets={"猫": 0.0, "狗": 0.2}, limit=0.8, accidents=0.05)
    this.optimum[1], this.bends[1] = 1.3, 1.5
    data, random = this.data(trials), np.random.default_rng(0)
    folder.mkdir()
    record = Record(folder, data.study, ["python", "train.py"])
    for trial in data.trials:
        if trial.status == "ok" and mode_of_files:
            validation, train = curves(KINDS[trial.trial % 6], random)
            down = trial.value - min(value for _, value in validation)
            rows = {step: [value + down, ""] for step, value in validation}
            for step, value in train:
                rows.setdefault(step, ["", ""])[1] = value
            text = "".join(f"{step},{a},{b}\n" for step, (a, b) in sorted(rows.items()))
            (folder / str(trial.trial)).mkdir()
            (folder / str(trial.trial) / "metrics.csv").write_text(f"step,val/loss,train/loss\n{text}")
        record.add(trial)
    return folder


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = kept(tmp_path_factory.mktemp("reports") / "planted")
    assert main(["study", "report", str(folder)]) == 0
    return folder / "report"


def test_the_report_of_a_study(reported: Path) -> None:
    told = json.loads((reported / "report.json").read_text())
    codes = {(f["code"], f["parameter"]) for f in told["findings"]}
    assert ("better", "net.kind") in codes and ("boundary", "optim.weight_decay") in codes
    assert {code for code, name in codes if name == "optim.lr"} & {"infeasible_region", "unstable_beyond"}
    assert "net.kind=猫 is better than 狗" in told["verdict"] and len(told["trials"]) == 32
    page = (reported / "report.html").read_text()
    assert "猫" in page and page.count("<figure>") >= 4 + 4
    assert "http" not in page.replace("http-equiv", ""), "nothing comes from elsewhere"
    pictures = {file.name for file in reported.glob("*.png")}
    assert {"axis_optim.lr.png", "axis_net.kind.png", "curves.png", "best_of_n.png"} <= pictures


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_best_of_a_setting_lies_within_its_interval(mode: str) -> None:
    data = world(0).data()
    data.metric = replace(data.metric, mode=mode)
    low, best, high = best_within(data, [trial.value for trial in data.feasible])
    assert low <= best <= high and best == (max if mode == "max" else min)(t.value for t in data.feasible)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_difference_has_the_metrics_sign(mode: str) -> None:
    data = world(0, offsets={"a": 0.0, "b": 0.5}).data()
    data.metric = replace(data.metric, mode=mode)
    (found,) = [f for f in findings(data) if f.code == "better"]
    (against,) = found.details["against"].values()
    assert found.details["best"] == ("b" if mode == "max" else "a")
    assert against["low"] < against["difference"] < against["high"]
    assert (against["low"] > 0) if mode == "max" else (against["high"] < 0)


def test_the_next_study_takes_in_what_was_found(reported: Path) -> None:
    (file,) = (reported / "study").glob("*.yaml")
    given = yaml.safe_load(file.read_text())
    following = declared({key: value for key, value in given.items() if key != "defaults"})
    by_key = {p.key: p for p in following.parameters}
    assert following.fixed["net.kind"] == "猫" and "net.kind" not in by_key
    assert by_key["optim.weight_decay"].high == pytest.approx(0.1) and by_key["optim.lr"].high < 0.01


def test_another_metric_afterwards(reported: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["study", "report", str(reported.parent), "--metric", "train/loss", "--no-pictures"]) == 0
    told = json.loads((reported / "report.json").read_text())
    assert told["metric"]["name"] == "train/loss" and told["best"]["value"] != pytest.approx(1.0, abs=0)
    assert main(["study", "report", str(reported.parent), "--metric", "val/los"]) == 2
    assert "no trial has logged val/los" in capsys.readouterr().err


def job(folder: Path, words: list[str], files: dict[str, str]) -> None:
    for name, text in {".hydra/overrides.yaml": yaml.safe_dump(words), **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def bowl(rate: float) -> str:
    best = 0.9 - 0.1 * abs(np.log10(rate / 1e-3))
    return "epoch,step,val/acc,train_loss\n" + "".join(f"{i},{i * 10},{best - 0.3 / i},{1 / i}\n" for i in range(1, 11))


def test_nested_folders_of_the_usual_template(tmp_path: Path) -> None:
    """Named after their overrides, the table below csv/version_0, an objective in the config, one job that failed."""
    for rate in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2):
        for width in ([64, 64], [128, 128]):
            words = [f"model.optimizer.lr={rate}", f"model.net.sizes={width}", "trainer=cpu", f"hydra.job.num={rate}"]
            files = {".hydra/config.yaml": "optimized_metric: val/acc\n"}
            if rate == 1e-2:
                files["train.log"] = "started\nRuntimeError: CUDA error: out of memory\n"
            else:
                files["csv/version_0/metrics.csv"] = bowl(rate)
            job(tmp_path / "2026-01-01" / f"lr={rate},sizes={width[0]}", words, files)
    data = directories.read(tmp_path)
    assert (data.metric.name, data.metric.mode) == ("val/acc", "max")
    assert {(p.key, p.is_range) for p in data.parameters} == {("model.optimizer.lr", True), ("model.net.sizes", False)}
    assert data.fixed == {"trainer": "cpu"} and len(data.infeasible) == 2
    page, told = report.write(data, pictures=False)
    assert "out of memory" in page.read_text() and data.feasible[0].point["model.optimizer.lr"] == 1e-3
    assert [f.code for f in told if f.parameter == "model.net.sizes"] == ["not_distinguishable"]


def test_a_flat_sweep_without_a_declared_metric(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for number in range(6):
        rate, seed = (1e-4, 1e-3, 1e-2)[number % 3], number // 3
        job(tmp_path / str(number), [f"+lr={rate}", f"seed={seed}", "~callbacks"], {"logs/run/metrics.csv": bowl(rate)})
    job(tmp_path / "6", ["+lr=1e-5"], {})  # killed before it did anything
    (tmp_path / "7" / ".hydra").mkdir(parents=True)
    (tmp_path / "7" / ".hydra" / "overrides.yaml").write_text("{not: [a list")
    (tmp_path / "multirun.yaml").write_text("hydra: {}\n")
    assert main(["study", "report", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "--metric" in said and "val/acc" in said and said.count("\n") == 1
    assert main(["study", "report", str(tmp_path), "--metric", "val/acc", "--no-pictures"]) == 0
    told = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [t["status"] for t in told["trials"]] == ["ok"] * 6 + ["failed"] and told["best"]["point"]["lr"] == 1e-3
    assert any("1 runs are left out" in note for note in told["notes"])


@pytest.mark.parametrize(
    "files", [{}, {"0/.hydra/overrides.yaml": "- a=1\n"}, {"study.json": "{}"}, {"study.json": "["}]
)
def test_a_directory_without_anything_to_say_gives_a_line(
    tmp_path: Path, files: dict[str, str], capsys: pytest.CaptureFixture
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert main(["study", "report", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_a_thousand_trials_in_twenty_seconds(tmp_path: Path) -> None:
    folder = kept(tmp_path / "large", 1000)
    began = time.process_time()
    report.write(directories.read(folder))
    assert time.process_time() - began < 20


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", [[], ["--force-dark-mode"]])
def test_a_browser_shows_it(reported: Path, width: int, scheme: list[str]) -> None:
    """No error on the console, one figure a varied parameter, nothing wider than the window."""
    browser = shutil.which("chromium") or pytest.skip("needs chromium")
    probe = reported / "probe.html"
    page = (reported / "report.html").read_text()
    asked = "document.title=[document.documentElement.scrollWidth,innerWidth,document.querySelectorAll('figure svg').length]"
    probe.write_text(page.replace("</body>", f"<script>{asked}</script></body>"))
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},900"]
    command += [*scheme, "--enable-logging=stderr", "--dump-dom", probe.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    scrolled, inner, figures = map(int, done.stdout.partition("<title>")[2].partition("<")[0].split(","))
    assert scrolled <= inner and figures >= 8 and "CONSOLE" not in done.stderr
