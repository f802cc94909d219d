"""Rows survive whatever ends a run."""

import json
from pathlib import Path

from alignlab.tasks.inputs import Item
from alignlab.tasks.predictions import Predictions

import pytest


def row(id: str, **more: object) -> dict:
    return {"id": id, "input": f"text {id}", "error": None, **more}


ITEMS = [Item(id, f"text {id}", {}) for id in "abc"]


def test_rows_are_there_at_once_and_in_order_at_the_end(tmp_path: Path) -> None:
    held = Predictions(tmp_path)
    for id in "cab":
        held.add(row(id, reply="Käse\n🧀"))
        assert f'"id": "{id}"' in (tmp_path / "predictions.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    assert [found["id"] for found in held.sort("abc")] == ["a", "b", "c"]
    again = Predictions(tmp_path, resumed=True)
    assert list(again.rows.values()) == [row(id, reply="Käse\n🧀") for id in "abc"]


def test_an_interrupted_file_goes_on(tmp_path: Path) -> None:
    held = Predictions(tmp_path)
    held.add(row("a"))
    held.add(row("b") | {"error": "too long"})
    with held.file.open("a") as file:
        file.write('{"id": "c", "inp')
    again = Predictions(tmp_path, resumed=True)
    assert [item.id for item in again.missing(ITEMS)] == ["b", "c"], "failed and half-written ones are done again"
    again.add(row("b"))
    again.add(row("c"))
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == 3


def test_replies_with_odd_line_ends_are_read_again(tmp_path: Path) -> None:
    held = Predictions(tmp_path)
    held.add(row("a", reply="x\u2028y\x85z"))
    assert held.settle() == 1
    with held.file.open("ab") as file:
        file.write('{"id": "b", "reply": "é'.encode()[:-1])  # killed within a letter
    assert list(Predictions(tmp_path, resumed=True).rows.values()) == [row("a", reply="x\u2028y\x85z")]


def test_other_runs_are_left_alone(tmp_path: Path) -> None:
    Predictions(tmp_path).add(row("a"))
    with pytest.raises(ValueError, match="holds predictions already; go on with resume="):
        Predictions(tmp_path)
    with pytest.raises(ValueError, match="item a is another text now"):
        Predictions(tmp_path, resumed=True).missing([Item("a", "another", {})])


def test_damaged_lines_are_set_aside_and_done_again(tmp_path: Path) -> None:
    held = Predictions(tmp_path)
    for id in "abc":
        held.add(row(id))
    lines = held.file.read_text().split("\n")
    damaged = "\n".join([lines[0], lines[1][:-9] + "\0", "[3]", '{"input": "no id"}', lines[2], ""])
    held.file.write_text(damaged)
    again = Predictions(tmp_path, resumed=True)
    assert [item.id for item in again.missing(ITEMS)] == ["b"] and list(again.rows) == ["a", "c"]
    (note,) = again.notes
    assert note.startswith("resume: lines 2, 3, 4 are no row of predictions.jsonl; these items are done again, ")
    assert (tmp_path / "predictions.jsonl.damaged").read_text() == damaged
    assert Predictions(tmp_path, resumed=True).notes == []


def test_a_signal_between_two_lines_loses_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictions = Predictions(tmp_path)
    predictions.add(row("a"))

    def broken(_: dict) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("alignlab.tasks.predictions._line", broken)
        predictions.add(row("b"))
    assert predictions.settle() == 2
    assert [json.loads(line)["id"] for line in (tmp_path / "predictions.jsonl").read_text().splitlines()] == ["a", "b"]
