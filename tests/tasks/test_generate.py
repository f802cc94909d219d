"""Answers of a real tiny model: the same alone and in company, judged, streamed, gone on with."""

import json
from dataclasses import replace
from pathlib import Path

from alignlab.data.language.rendering import Renderer
from alignlab.inference.backend import Request, Sampling
from alignlab.inference.backends.scripted import ScriptedBackend
from alignlab.prompting.self_consistency import SelfConsistency
from alignlab.prompting.zero_shot import ZeroShot
from alignlab.tasks.generate import Generate
from language_job import job_of, printed, subject_of

import pytest

PROMPTS = ["Hello", "a", "The quick brown fox", "Once upon a time", "2 + 2 ="]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    return tmp_path / "prompts.txt"


def rows_of(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "predictions.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_company_changes_nothing(language_model: Path, prompts: Path, tmp_path: Path, temperature: float) -> None:
    subject = subject_of(language_model, max_new_tokens=12, temperature=temperature)
    job = job_of(tmp_path / "together", file=prompts)
    found = Generate().run(subject, job)
    rows = rows_of(job.run_dir)
    assert [row["input"] for row in rows] == PROMPTS
    assert found["failed"] == 0 and found["tokens"] == sum(row["tokens"] for row in rows) > 0
    for row in rows:
        (tmp_path / "one.jsonl").write_text(json.dumps({"id": row["id"], "text": row["input"]}))
        alone = job_of(tmp_path / f"alone{row['id']}", file=tmp_path / "one.jsonl")
        Generate().run(subject, alone)
        (again,) = rows_of(alone.run_dir)
        assert (again["reply"], again["finish"]) == (row["reply"], row["finish"])
        assert again["logprob"] == pytest.approx(row["logprob"], abs=1e-4)


def test_a_reply_is_what_the_backend_gives(language_model: Path, tmp_path: Path) -> None:
    subject = subject_of(language_model, max_new_tokens=12)
    job = job_of(tmp_path, "Hello")
    Generate(keep_prompts=True).run(subject, job)
    ids = subject.tokenizer("Hello")["input_ids"]
    (completion,) = subject.backend.generate([Request(ids, 0, Sampling(max_new_tokens=12))])
    (row,) = rows_of(tmp_path)
    text = subject.tokenizer.decode(completion.ids, skip_special_tokens=True)
    assert row["reply"] == text and row["exchanges"] == [["Hello", text]]
    assert row["logprob"] == pytest.approx(sum(completion.logprobs), abs=1e-4)


def test_too_long_prompts_are_rows_with_their_error(language_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("short\n" + "long " * 40 + "\n")
    job = job_of(tmp_path / "run", file=tmp_path / "a.txt")
    found = Generate().run(subject_of(language_model, max_new_tokens=4), job)
    good, bad = rows_of(job.run_dir)
    assert good["error"] is None and found["failed"] == 1
    assert "200" in bad["error"] and "64" in bad["error"], "both numbers"
    with pytest.raises(ValueError, match="64"):
        Generate().run(subject_of(language_model), job_of(tmp_path / "other", "long " * 40))


def test_dialogues_are_asked_as_ppo_asks_them(chat_model: Path, tmp_path: Path) -> None:
    """Rows {"messages": [...]} and {"prompt": [turns]} asked the empty text; a row without a question is one with an error."""
    chat = [{"role": r, "content": c} for r, c in (("system", "Be kind."), ("user", "a"), ("assistant", "b"))]
    chat.append({"role": "user", "content": "c"})
    rows = [{"messages": [*chat, {"role": "assistant", "content": "d"}]}, {"prompt": chat}, {"promt": "e"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    backend = ScriptedBackend({"c": "Yes."})
    found = Generate().run(subject_of(chat_model, backend=backend), job_of(tmp_path / "run", file=tmp_path / "a.jsonl"))
    wanted = Renderer(backend.tokenizer, 512).prompt(chat)
    assert backend.prompts == [backend.tokenizer.decode(wanted)] * 2 and found["failed"] == 1
    first, second, third = rows_of(tmp_path / "run")
    assert first["input"] == second["input"] == "c" and first["before"] == second["before"] == chat[:3]
    assert third["reply"] is None and "line 3: has none of the fields" in third["error"]
    job = job_of(tmp_path / "run", file=tmp_path / "a.jsonl", resumed=True)
    assert [item.id for item in job.predictions.missing(job.items())] == ["2"]
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": [*chat[1:]]}))
    with pytest.raises(ValueError, match="item 0 is another text now"):
        job.predictions.missing(job.items())


def test_targets_make_an_evaluation(language_model: Path, tmp_path: Path) -> None:
    lines = [
        {"text": "2 + 2", "target": "4"},
        {"text": "2 + 3", "target": ["5", "five"]},
        {"text": "2 + 4", "target": 6},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    backend = ScriptedBackend({"2 + 2": "It is 4.", "2 + 3": "5!", "2 + 4": "Many."})
    subject = subject_of(language_model, ZeroShot(answer="number"), backend)
    job = job_of(tmp_path / "run", file=tmp_path / "a.jsonl")
    found = Generate().run(subject, job)
    assert next(iter(found)) == "accuracy", "the objective of a sweep"
    assert found["accuracy"] == pytest.approx(2 / 3) and found["no_answer_rate"] == pytest.approx(1 / 3)
    assert [row["correct"] for row in rows_of(job.run_dir)] == [True, True, False]
    assert [row["answer"] for row in rows_of(job.run_dir)] == ["4", "5", None]


def test_votes_are_kept(language_model: Path, tmp_path: Path) -> None:
    technique = SelfConsistency(ZeroShot(answer="number"), samples=3)
    subject = subject_of(language_model, technique, ScriptedBackend(["4", "5", "4"]), temperature=1.0)
    Generate().run(subject, job_of(tmp_path, "2 + 2"))
    (row,) = rows_of(tmp_path)
    assert (row["answer"], row["votes"]) == ("4", {"4": 2.0, "5": 1.0})


def test_finished_rows_are_not_asked_again(language_model: Path, prompts: Path, tmp_path: Path) -> None:
    class Interrupted(ScriptedBackend):
        def _answer(self, prompt: str) -> str:
            if len(self.prompts) == 4:
                raise KeyboardInterrupt
            return prompt.upper()

    first = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        Generate().run(subject_of(language_model, backend=first), job_of(tmp_path / "run", file=prompts))
    assert len(rows_of(tmp_path / "run")) == 3
    second = Interrupted()
    Generate().run(subject_of(language_model, backend=second), job_of(tmp_path / "run", file=prompts, resumed=True))
    assert sorted([*first.prompts[:3], *second.prompts]) == sorted(PROMPTS)
    assert [row["reply"] for row in rows_of(tmp_path / "run")] == [prompt.upper() for prompt in PROMPTS]


def test_streaming(language_model: Path, tmp_path: Path) -> None:
    job = job_of(tmp_path, "Hello")
    backend = ScriptedBackend(["Käse 🧀!"])
    Generate(stream=True).run(subject_of(language_model, backend=backend), job)
    assert printed(job) == "Käse 🧀!\n"


def test_a_stop_string_of_several_tokens_is_never_shown(language_model: Path, tmp_path: Path) -> None:
    """The scripted backend speaks in bytes and goes on behind a stop string, as a token may that holds more than its end."""
    for number, (said, shown) in enumerate({"aaa\n\nHo": "aaa", "aaa\nHo": "aaa\nHo", "aaa\n": "aaa\n"}.items()):
        job = job_of(tmp_path / str(number), "Hello")
        subject = subject_of(language_model, backend=ScriptedBackend([said]))
        sampling = subject.asker.sampling._replace(stop=("\n\n", "\nHome"))
        subject = subject._replace(asker=replace(subject.asker, sampling=sampling))
        Generate(stream=True).run(subject, job)
        (row,) = job.predictions.rows.values()
        assert row["reply"] == shown and printed(job) == shown + "\n"
