"""Who changes sides between sizes: by hand, beside chance, in the report."""

import json
from pathlib import Path

from alignlab.cli import main
from alignlab.scaling.flips import flips
from alignlab.scaling.reading import ladder

import numpy as np
import pytest


def runs(folder: Path, sides: np.ndarray) -> list[str]:
    """Run directories of models whose answers to items are right or not (M, N)."""
    for number, row in enumerate(sides):
        run = folder / f"m{number}"
        run.mkdir(parents=True)
        (run / "result.json").write_text(json.dumps({"parameters": 10**number}))
        items = [{"id": f"item{i}", "task": "t", "correct": bool(side)} for i, side in enumerate(row)]
        (run / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return [str(folder / f"m{number}") for number in range(len(sides))]


def test_by_hand(tmp_path: Path) -> None:
    sides = np.array([[1, 1, 0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 1, 1, 0, 0]], bool)
    told = flips(ladder.read(runs(tmp_path, sides)).of("t"))
    first, second = told.changes
    assert (first.smaller, first.larger, first.right_before, first.right_then) == ("m0", "m1", 2, 4)
    assert (first.gained, first.lost, second.gained, second.lost) == (3, 1, 2, 1)
    assert (first.expected_lost, first.expected_gained) == (1.0, 3.0)  # 2 * 4 / 8, 6 * 4 / 8
    assert [name for name, _ in told.items][:2] == ["item0", "item2"]  # both are lost once; item0 comes back too
    assert dict(told.items)["item0"] == (True, False, True) and "item1" not in dict(told.items)


def test_chance_is_what_drawing_anew_gives(tmp_path: Path) -> None:
    rng, inside = np.random.default_rng(0), 0
    for trial in range(30):
        sides = np.stack([rng.permutation(200) < count for count in (60, 90, 150)])
        changes = flips(ladder.read(runs(tmp_path / str(trial), sides)).of("t")).changes
        inside += sum(each.low <= each.lost <= each.high for each in changes)
        assert changes[0].expected_lost == pytest.approx(60 * 110 / 200)
    assert 54 <= inside <= 60  # at least 95 % of 60, less chance
    easy = np.stack([np.arange(200) < count for count in (60, 90, 150)])  # what is right stays right
    first = flips(ladder.read(runs(tmp_path / "easy", easy)).of("t")).changes[0]
    assert (first.gained, first.lost) == (30, 0) and first.low > 20


def test_report_shows_them(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rng = np.random.default_rng(1)
    sides = np.stack([rng.random(60) < chance for chance in (0.2, 0.4, 0.6, 0.8)])
    places = runs(tmp_path, sides)
    assert main(["scaling", "report", *places, "--output", str(tmp_path / "out"), "--no-pictures"]) == 0
    assert "m0 to m1: " in capsys.readouterr().out
    told = json.loads((tmp_path / "out" / "report.json").read_text())["tasks"][0]["flips"]
    assert len(told["changes"]) == 3 and told["items"] == 60
    page = (tmp_path / "out" / "report.html").read_text()
    assert "wrong to right" in page and told["changed"][0]["id"] in page
