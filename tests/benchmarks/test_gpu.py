"""`make gpu`: budget, order and report with parts of milliseconds; every part accounted for on a machine without a GPU."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tiny_run import REPOSITORY

import pytest

sys.path.insert(0, str(REPOSITORY / "benchmarks" / "gpu"))
import parts
import report
from schedule import Outcome, Part, read_rows, run_parts


def part(name: str, program: str, limit: float = 60.0, least: float = 1.0) -> Part:
    return Part(name, name.capitalize(), (sys.executable, "-c", program, "{folder}"), limit, least)


ROW = 'import sys, json; open(sys.argv[1] + "/rows.jsonl", "a").write(json.dumps({"name": "n", "value": 1.5}) + "\\n");'


class Clock:
    """Moves on by what the parts are told to take."""

    def __init__(self, *steps: float) -> None:
        self.times = iter(steps)

    def __call__(self) -> float:
        return next(self.times)


def test_the_budget_goes_to_the_first_and_small_ones_still_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def pretend(part: Part, outcome: Outcome, limit: float, folder: Path, device: str) -> None:
        asked.append((part.name, limit))
        outcome.status = "ok"

    monkeypatch.setattr("schedule.run_part", pretend)
    chosen = [
        part("a", "", 50),
        part("b", "", 100),
        part("c", "", 40, least=30),
        part("d", "", 40, least=5),
        part("e", ""),
    ]
    # start; a: left, begun, ended; b the same; c: left; d: left, begun, ended; e: left
    clock = Clock(0, *(0, 0, 30), *(30, 30, 90), 90, *(90, 90, 101), 101)
    outcomes = run_parts(chosen, 100, tmp_path, "cpu", clock=clock)
    assert asked == [("a", 50), ("b", 70), ("d", 10)]
    assert [o.status for o in outcomes] == ["ok", "ok", "no time", "ok", "no time"]
    assert outcomes[2].reason == "10 s left, needs 30" and outcomes[4].reason == "0 s left, needs 1"
    assert [o.seconds for o in outcomes] == [30, 60, 0, 11, 0]


def test_targets_are_judged_on_a_card_only_and_a_cut_row_is_left_out(tmp_path: Path) -> None:
    name = "decode 135M, batch 1"
    rows = [
        {"name": name, "value": 699.0, "unit": "tokens/s"},
        {"name": "main job, seconds", "value": 41.0},
        {"name": "x", "error": "a|b"},
    ]
    outcome = Outcome("decode", "decoding", "ok", rows=rows)
    report.write(tmp_path, [outcome], {"card": "H200"}, judge=True)
    text = (tmp_path / "table.md").read_text()
    assert f"| {name} | 699 | tokens/s | >= 700 | not met |" in text
    assert "| main job, seconds | 41 |  | <= 60 | met |" in text and "| x | a/b |" in text
    assert "CLIP ViT-B/16, MFU" in text.partition("Targets without a number: ")[2]
    assert json.loads((tmp_path / "gpu.json").read_text())["parts"][0]["rows"][0]["met"] is False
    assert "met |" not in report.table([outcome], "", judge=False)
    (tmp_path / "rows.jsonl").write_text('{"name": "whole"}\n{"name": "cu')
    assert read_rows(tmp_path / "rows.jsonl") == [{"name": "whole"}]


def test_parts_are_programs_with_names_of_their_own() -> None:
    assert len({p.name for p in parts.PARTS}) == len(parts.PARTS) == 9
    assert all(Path(p.command[1]).exists() for p in parts.PARTS)


def test_a_part_is_told_how_long_it_may_take(tmp_path: Path) -> None:
    program = 'import sys, json; json.dump(sys.argv[1:], open(sys.argv[2] + "/rows.jsonl", "w"))'
    told = Part("told", "Told", (sys.executable, "-c", program, "{device}", "{folder}", "{seconds}"), 60.0)
    outcomes = run_parts([told], 43.0, tmp_path, "cpu", clock=Clock(0, 0, 0, 1))
    assert outcomes[0].rows == [["cpu", str(tmp_path / "told"), "40"]]


@pytest.mark.distributed
@pytest.mark.slow
def test_over_its_limit_and_failing(tmp_path: Path) -> None:
    child = f"import subprocess, time; {ROW} p = subprocess.Popen(['sleep', '300']); open(sys.argv[1] + '/child', 'w').write(str(p.pid)); time.sleep(300)"
    seen = []
    chosen = [
        part("slow", child, limit=8),
        part("failing", f"{ROW} raise SystemExit('no such thing')"),
        part("fine", ROW),
    ]
    started = time.monotonic()
    outcomes = run_parts(
        chosen, 60, tmp_path, "cpu", changed=lambda found: seen.append([(o.status, len(o.rows)) for o in found])
    )
    assert time.monotonic() - started < 30
    assert [o.status for o in outcomes] == ["over its limit", "failed", "ok"]
    assert [len(o.rows) for o in outcomes] == [1, 1, 1] and "exit code 1: no such thing" in outcomes[1].reason
    assert seen[0] == [("running", 0), ("waiting", 0), ("waiting", 0)] and seen[1][0] == ("over its limit", 1)
    state = Path(f"/proc/{(tmp_path / 'slow' / 'child').read_text()}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z", "the part's child is still there"


@pytest.mark.distributed
def test_without_a_gpu_every_part_says_so(tmp_path: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "gpu" / "run.py"), "--folder", str(tmp_path)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert {(p["status"], p["reason"]) for p in found} == {("not run", "no CUDA device")} and len(found) == 9
