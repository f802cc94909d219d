"""How often a model solves each prompt: shares, what is kept, and what can't be checked."""

import json
from pathlib import Path

from alignlab.inference.backend import Sampling
from alignlab.inference.backends.scripted import ScriptedBackend
from alignlab.prompting.asking import Asker
from alignlab.prompting.zero_shot import ZeroShot
from alignlab.tasks.job import Job, Subject
from alignlab.tasks.predictions import Predictions
from alignlab.tasks.solve import FILE, Solve

import pytest


def subject(temperature: float = 1.0) -> Subject:
    backend = ScriptedBackend(answers=["4"] * 4 + ["4", "5"] * 2 + ["5"] * 4)
    asker = Asker(backend, backend.tokenizer, Sampling(16, temperature), "plain", 4, 0)
    return Subject(backend, backend.tokenizer, ZeroShot(), asker, None, None)


def job(folder: Path, rows: list[dict]) -> Job:
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Job(folder, Predictions(folder), input=str(folder / "problems.jsonl"))


def test_shares(tmp_path: Path) -> None:
    rows = [{"prompt": name, "answer": "4", "level": 1} for name in ("easy", "half", "hard")]
    rows += [{"prompt": "easy too"}, {"prompt": "easy as well", "answer": "4", "checker": "maths"}]
    one = job(tmp_path, rows)
    metrics = Solve(samples=4, checker="number").run(subject(), one)
    assert [row["solved"] for row in one.predictions.rows.values()] == [1.0, 0.5, 0.0, None, None]
    assert metrics == {
        "solved": 0.5,
        "kept": 1.0,
        "kept_share": pytest.approx(1 / 3),
        "never_solved": pytest.approx(1 / 3),
        "always_solved": pytest.approx(1 / 3),
        "failed": 2.0,
    }
    assert json.loads((tmp_path / FILE).read_text()) == {**rows[1], "solved": 0.5}
    with pytest.raises(ValueError, match="samples=8 answers at temperature 0 are equal: use sampling=varied"):
        Solve().run(subject(0.0), one)
    with pytest.raises(ValueError, match=r"low is 0.9; it must lie in 0..high=0.8"):
        Solve(low=0.9)
