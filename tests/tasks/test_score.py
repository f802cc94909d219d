"""Likelihoods against transformers' own loss, whole texts against windows."""

import json
import math
from pathlib import Path

from alignlab.data.language.rendering import Renderer
from alignlab.models.language.paths import load_tokenizer
from alignlab.models.language.reward import load_reward_model
from alignlab.tasks.rewards import load_rewarded
from alignlab.tasks.score import Score, _windows
from language_job import job_of, printed, subject_of
from served_model import write_reward_model

import pytest
import torch
from transformers import AutoModelForCausalLM

TEXTS = ["Hello there", "a", "The quick brown fox jumps."]


def reference(folder: Path, text: str, context: str = "") -> float:
    """Log-likelihood of a text's bytes after the end-of-text token, by transformers alone."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    from alignlab.models.language.paths import load_tokenizer

    ids = [0, *load_tokenizer(str(folder))(context + text)["input_ids"]]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    chosen = logits.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    return float(chosen[len(context.encode()) :].double().sum())


def test_parity_with_transformers(language_model: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    job = job_of(tmp_path / "run", file=tmp_path / "texts.txt")
    found = Score().run(subject_of(language_model), job)
    expected = [reference(language_model, text) for text in TEXTS]
    rows = list(job.predictions.rows.values())
    assert [row["input"] for row in rows] == TEXTS
    assert [row["log_likelihood"] for row in rows] == pytest.approx(expected, abs=1e-3)
    assert [row["tokens"] for row in rows] == [len(text) for text in TEXTS], "the first byte counts too"
    size = sum(map(len, TEXTS))
    assert found["perplexity"] == pytest.approx(math.exp(-sum(expected) / size), rel=1e-4)
    assert found["bits_per_byte"] == pytest.approx(-sum(expected) / math.log(2) / size, rel=1e-4)
    assert "Hello there" in printed(job)


def test_a_context_does_not_count(language_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"context": "Say it: ", "text": "brown"}\n')
    job = job_of(tmp_path / "run", file=tmp_path / "a.jsonl")
    Score().run(subject_of(language_model), job)
    (row,) = job.predictions.rows.values()
    assert row["tokens"] == 5
    assert row["log_likelihood"] == pytest.approx(reference(language_model, "brown", "Say it: "), abs=1e-3)


def test_chats_count_what_training_learns(chat_model: Path, tmp_path: Path) -> None:
    turns = [
        {"role": r, "content": c} for r, c in (("user", "a"), ("assistant", "bc"), ("user", "d"), ("assistant", "e"))
    ]
    pair = {"prompt": turns[:1], "chosen": turns[1:2], "rejected": [turns[3]]}
    rows = [{"messages": turns}, pair, {"prompt": "Say it: ", "completion": "brown"}, {"txt": "a"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    job, subject = job_of(tmp_path / "run", file=tmp_path / "a.jsonl"), subject_of(chat_model)
    assert Score().run(subject, job)["failed"] == 1
    found = job.predictions.rows
    assert list(found) == ["0", "1.chosen", "1.rejected", "2", "3"] and "did you mean text" in found["3"]["error"]
    renderer, model = Renderer(subject.tokenizer, 512), AutoModelForCausalLM.from_pretrained(chat_model).eval()
    for id, chat in {"0": turns, "1.chosen": turns[:2], "1.rejected": [turns[0], turns[3]]}.items():
        (text,) = renderer.examples(chat[:1], chat[1:])
        with torch.no_grad():
            logits = model(torch.tensor([text.ids])).logits[0, :-1].log_softmax(-1)
        chosen = logits.gather(1, torch.tensor(text.ids[1:])[:, None])[:, 0]
        expected = float(chosen[torch.tensor(text.response[1:])].double().sum())
        assert found[id]["tokens"] == sum(text.response) and found[id]["log_likelihood"] == pytest.approx(
            expected, abs=1e-3
        )
    assert found["2"]["log_likelihood"] == pytest.approx(reference(chat_model, "brown", "Say it: "), abs=1e-3)


def test_a_reward_model_gives_rewards(tmp_path: Path) -> None:
    """It gave the perplexity of a language model that it isn't."""
    folder = write_reward_model(tmp_path / "model")
    rows = [{"prompt": "sky?", "chosen": " blue", "rejected": " green"}, {"text": "a"}, {"text": ""}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    job, model = job_of(tmp_path / "run", file=tmp_path / "a.jsonl"), load_reward_model(folder)
    found = Score().run(load_rewarded(str(folder)), job)
    renderer, values = Renderer(load_tokenizer(str(folder)), 512), {}
    for id, pair in {"0.chosen": ("sky?", " blue"), "0.rejected": ("sky?", " green"), "1": ("", "a")}.items():
        ids = torch.tensor([renderer.example(*pair).ids])
        values[id] = float(model(ids, torch.ones_like(ids, dtype=torch.bool)))
    rows = job.predictions.rows
    assert {id: row["reward"] for id, row in rows.items()} == pytest.approx(values | {"2": None}, abs=1e-5)
    assert rows["1"]["normalised"] == pytest.approx((values["1"] - 0.5) / 2, abs=1e-5)
    assert list(found) == ["accuracy", "mean_reward", "failed"] and found["failed"] == 1
    assert found["accuracy"] == float(values["0.chosen"] > values["0.rejected"])
    assert found["mean_reward"] == pytest.approx(sum(values.values()) / 3, abs=1e-5)


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(("length", "size"), [(5, 4), (16, 16), (17, 16), (100, 99), (100, 3), (64, 63)])
def test_windows_count_every_token_once(overlap: float, length: int, size: int) -> None:
    ids, seen = list(range(length)), []
    for window, new in _windows(ids, size, 16, overlap):
        assert len(window) <= 16
        assert new < len(window) or (new == len(window) == length), "what counts has something before it"
        seen += window[len(window) - new :]
    assert seen == ids[length - size :]


def test_a_long_text(language_model: Path, tmp_path: Path) -> None:
    """Windows of 64 tokens: the first token of a window is seen without what came before, the others with half a window."""
    text = "The quick brown fox jumps over the lazy dog. " * 4
    job = job_of(tmp_path, text)
    subject = subject_of(language_model)
    Score().run(subject, job)
    (row,) = job.predictions.rows.values()
    assert row["tokens"] == len(text) and row["error"] is None
    ids = [0, *subject.tokenizer(text)["input_ids"]]
    start = subject.backend.score([ids[:64]])[0]
    second = subject.backend.score([ids[32:96]])[0][31:]
    assert sum(start) + sum(second) > row["log_likelihood"], "a part of the whole"
    expected, counted = sum(start), 64
    while counted < len(ids):
        end = min(counted + 32, len(ids))
        expected += sum(subject.backend.score([ids[end - 64 : end]])[0][-(end - counted) :])
        counted = end
    assert row["log_likelihood"] == pytest.approx(expected, abs=1e-3)
