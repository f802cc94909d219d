"""Reports of runs: what stands in them, whose words are text, what a broken directory does, and how wide they are."""

import json
import re
import shutil
import subprocess
from pathlib import Path

from alignlab.cli import main
from alignlab.reports.lines import lines
from alignlab.reports.runs.reading import read_run, runs_below
from alignlab.reports.runs.several import differing, groups, table

import pytest
from PIL import Image

EVIL = "<script>alert(1)</script>"


def write_run(folder: Path, lr: float, seed: int, recall: float, status: str = "ok") -> Path:
    """A run directory as training leaves it, with words that want to be HTML."""
    (folder / "samples").mkdir(parents=True)
    (folder / ".hydra").mkdir()
    config = ["model: {_target_: alignlab.methods.clip.ClipMethod}", "data: {batch_size: 64}", "run_name: clip"]
    config += [
        f"optim: {{_target_: alignlab.optim.adamw.adamw, lr: {lr}}}",
        f"seed: {seed}",
        "trainer: {precision: 32-true}",
    ]
    (folder / "config.yaml").write_text("\n".join(config) + "\n")
    (folder / ".hydra" / "overrides.yaml").write_text(f"- model=clip\n- ++optim.lr={lr}\n")
    rows = [f"{step},{4.0 / (step + 1) + seed},{'' if step < 3 else recall}" for step in range(4)]
    (folder / "metrics.csv").write_text("step,train/loss,val/text_to_image_recall_at_1\n" + "\n".join(rows) + "\n3,da")
    metrics = {"val/text_to_image_recall_at_1": recall, "train/loss": 1.0 + seed}
    result = {"status": status, "metrics": metrics, "steps": 4, "seconds": 8.0, "notes": [EVIL], "git_revision": "abc"}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "train.log").write_text(
        f"[2026][alignlab.x][WARNING] - rows were left out {EVIL}\n[2026][x][INFO] - a line\n"
    )
    (folder / "samples" / "answers.jsonl").write_text(
        json.dumps({"prompt": EVIL, "before": "YYYY", "after": "good"}) + "\n"
    )
    Image.new("RGB", (1500, 40), "red").save(folder / "samples" / "retrieval.png")
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two rates with two seeds each, in a directory of runs, and one that is none."""
    for number, (lr, seed, recall) in enumerate([(1e-3, 0, 0.5), (1e-3, 1, 0.7), (4e-3, 0, 0.2), (4e-3, 1, 0.4)]):
        write_run(tmp_path / "clip" / f"{number}", lr, seed, recall)
    (tmp_path / "clip" / "other").mkdir()
    (tmp_path / "clip" / "other" / "config.yaml").write_text("task: {}\n")
    return tmp_path


def test_a_run_as_one_page(runs: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["report", str(runs / "clip" / "0")]) == 0
    file = Path(capsys.readouterr().out.strip())
    html = file.read_text()
    assert file == runs / "clip" / "0" / "report.html" and EVIL not in html and html.count("&lt;script&gt;") == 3
    assert not re.findall(r'(?:src|href)="(?!data:)', html)  # nothing else is needed
    for text in (
        "python train.py model=clip optim.lr=0.001",
        "YYYY",
        "rows were left out",
        "data:image/png;base64,",
        "abc",
    ):
        assert text in html, text
    assert html.count("<polyline") == 1 and "<circle" in html  # four losses, one recall
    assert "ok after 4 steps" in html and "batch_size: 64" in html


def test_runs_are_compared_by_what_differs(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    found = runs_below([runs / "clip"])
    assert differing(found) == ["optim.lr"]
    head, rows = table(groups(found))
    assert head[:3] == ["run", "seeds", "val/text_to_image_recall_at_1"]
    assert [row[:3] for row in rows] == [["lr=0.001", "2", "0.6 ± 0.14"], ["lr=0.004", "2", "0.3 ± 0.14"]]
    assert main(["compare", str(runs / "clip"), "--output", str(tmp_path / "c.html")]) == 0
    html, said = (tmp_path / "c.html").read_text(), capsys.readouterr().out
    assert "optim.lr: 0.001, 0.004" in said and "0.6 ± 0.14" in said
    assert html.index("What differs") < html.index("0.6 ± 0.14") and html.count('<polyline class="c1"') == 2
    assert main(["compare", str(runs / "clip" / "other")]) == 2 and "no run with results" in capsys.readouterr().err
    assert main(["report", str(runs / "nowhere")]) == 2 and "no run directory" in capsys.readouterr().err


def test_a_run_that_is_half_there(runs: Path) -> None:
    folder = runs / "clip" / "1"
    for name in ("result.json", "train.log", "metrics.csv"):
        (folder / name).write_bytes(b"\xff\xfe{nothing")
    shutil.rmtree(folder / ".hydra")
    assert main(["report", str(folder)]) == 0 and "no result yet" in (folder / "report.html").read_text()
    assert read_run(folder).rows == []


def test_curves_of_odd_numbers() -> None:
    nan = float("nan")
    assert lines({"a": ([0, 1], [nan, nan])}, "t") == ""
    flat, huge = (
        lines({"a": ([0, 5], [2.0, 2.0])}, "t"),
        lines({"a": (range(10_000), [1e30 * i for i in range(10_000)])}, "t"),
    )
    assert "nan" not in flat and "<polyline" in flat and huge.count(",") < 450 and "9.999e+33" in huge
    assert lines({EVIL: ([0], [1.0])}, EVIL).count("<script>") == 0


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_has_nothing_to_move_sideways(runs: Path, tmp_path: Path, width: int) -> None:
    if (browser := shutil.which("chromium")) is None:
        pytest.skip("no chromium")
    main(["report", str(runs / "clip" / "0")])
    main(["compare", str(runs / "clip"), "--output", str(tmp_path / "c.html")])
    for file in (runs / "clip" / "0" / "report.html", tmp_path / "c.html"):
        framed = tmp_path / f"framed_{file.stem}.html"
        script = "<script>onload=()=>{let d=frames[0].document.documentElement;document.title=d.scrollWidth+'/'+d.clientWidth}</script>"
        framed.write_text(f"{script}<iframe src='{file}' style='width:{width}px;height:900px'></iframe>")
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
        done = subprocess.run([browser, *options, f"file://{framed}"], capture_output=True, text=True, timeout=120)
        wide, there = map(int, re.search(r"<title>(\d+)/(\d+)", done.stdout).groups())
        assert wide <= there, file.name
