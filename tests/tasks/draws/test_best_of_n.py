"""The best of several responses: what is picked, what is written for training, what a judge says; and a reward model's scores."""

import json
from pathlib import Path

from alignlab.data.language.modules import LanguageDataModule
from alignlab.data.language.own_rows import OwnRows
from alignlab.inference.backend import LoadReport, Sampling
from alignlab.inference.backends.scripted import ScriptedBackend
from alignlab.prompting.asking import Asker
from alignlab.prompting.technique import Reply
from alignlab.prompting.zero_shot import ZeroShot
from alignlab.tasks.draws.best_of_n import PAIRS, PICKED, BestOfN, Speaker
from alignlab.tasks.inputs import Item
from alignlab.tasks.job import Job, Subject
from alignlab.tasks.predictions import Predictions

import pytest

ROWS = [{"prompt": "one", "word": "b"}, {"prompt": "two", "word": "c"}, {"prompt": "tri"}, {"nothing": 1}]
ANSWERS = [" aaa", " abb", " bbb", " cab"] + [" cc", " a", " acc", " c"] + [" x"] * 4


def length(prompts: list[str], responses: list[str]) -> list[float]:
    return [float(len(response)) for response in responses]


def wanted(prompts: list[str], responses: list[str], word: list[str | None]) -> list[float]:
    return [float(response.count(w or "?")) for response, w in zip(responses, word, strict=True)]


def subject(temperature: float = 1.0) -> Subject:
    backend = ScriptedBackend(answers=ANSWERS)
    asker = Asker(backend, backend.tokenizer, Sampling(16, temperature), "plain", 4, 0)
    return Subject(backend, backend.tokenizer, ZeroShot(), asker, LoadReport(0, 0, 0), None)


def job(folder: Path) -> Job:
    rows = [{"word": None, **row} for row in ROWS]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Job(folder, Predictions(folder), input=str(folder / "prompts.jsonl"))


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_best_is_picked_and_written_for_training(tmp_path: Path) -> None:
    metrics = BestOfN(wanted, judge=length, samples=4).run(subject(), job(tmp_path))
    picked = [
        {"prompt": "one", "response": " bbb"},
        {"prompt": "two", "response": " cc"},
        {"prompt": "tri", "response": " x"},
    ]
    assert lines(tmp_path / PICKED) == picked
    assert lines(tmp_path / PAIRS) == [
        {"prompt": "one", "chosen": " bbb", "rejected": " aaa"},
        {"prompt": "two", "chosen": " cc", "rejected": " a"},
    ]
    assert metrics["best"] == pytest.approx((3 + 2 + 0) / 3) and metrics["mean"] == pytest.approx((6 + 5 + 0) / 12)
    assert metrics["kl"] == pytest.approx(1.3863 - 0.75, abs=1e-4) and metrics["failed"] == 1
    assert metrics["judge_mean"] == pytest.approx((16 + 11 + 8) / 12) and 0 < metrics["judge_rise"] < 1
    assert [row["error"] is None for row in lines(tmp_path / "predictions.jsonl")] == [True, True, True, False]
    data = LanguageDataModule(
        OwnRows, kind="sft", path=str(tmp_path / PICKED), val_path=str(tmp_path / PICKED), max_length=32, vocab_size=300
    )
    data.setup()
    assert len(data.rows["train"]) == 3


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="samples=2 answers at temperature 0 are equal: use sampling=varied"):
        BestOfN(length, samples=2).run(subject(0.0), job(tmp_path))
    with pytest.raises(ValueError, match="samples is 1; it must be at least 2"):
        BestOfN(length, samples=1)
    with pytest.raises(ValueError, match=r"task.reward=wanted asks for the column word"):
        (tmp_path / "prompts.jsonl").write_text('{"prompt": "one"}\n')
        BestOfN(wanted, samples=4).run(
            subject(), Job(tmp_path, Predictions(tmp_path), input=str(tmp_path / "prompts.jsonl"))
        )


def test_a_cut_response_has_no_end_and_costs(tmp_path: Path) -> None:
    asked = subject()
    tokenizer = asked.tokenizer
    scored = Speaker.of(asked).scored(
        Item("0", "one", {"word": "b"}), [Reply(" bb", "eos", 4), Reply(" bb", "length", 3)]
    )
    ended, cut = scored.sequences
    assert ended == [*cut, tokenizer.eos_token_id] and tokenizer.decode(cut).endswith("one bb")
    assert scored.ended == [True, False] and scored.rows == [{"word": "b"}] * 2
    item, replies = Item("0", "one", {"word": "b"}), [Reply(" bbb", "length", 4), Reply(" b", "eos", 3)]
    row = BestOfN(wanted, samples=2, missing_end_penalty=3.0)._row(item, replies, Speaker.of(asked))
    assert row["reply"] == " b" and row["scores"] == [3.0, 1.0] and row["learned"] == [0.0, 1.0]
