"""task=answer against the validation of the same runs, on questions and judged sentences from lists."""

import json
from pathlib import Path
from types import SimpleNamespace

import task_lists
from alignlab.configs.command_line import arguments
from alignlab.runs.building import build
from alignlab.tasks.pictures.answer import Answer
from alignlab.tasks.pictures.subject import VisionLanguage
from language_job import job_of, printed

import pytest
import torch

TINY = (
    *(f"model.net.encoder.{key}" for key in ("vision.width=32", "vision.depth=1", "text_width=32", "text_layers=1")),
    *("model.net.encoder.fusion_layers=1", "data.image_size=32", "data.num_workers=0", "data.val_share=0.4"),
)


@pytest.fixture
def subject(composed, tmp_path: Path):
    """What the door hands to the task, of a model with random weights on a list."""

    def make(*words: str) -> VisionLanguage:
        torch.manual_seed(0)
        datamodule, system = build(composed(*arguments([*words, *TINY])))
        system.configure_model()
        for parameter in system.parameters():
            parameter.data *= 2.0
        return VisionLanguage(system.eval(), datamodule, tmp_path)

    return make


def rows_of(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "predictions.jsonl").read_text().splitlines()]


def test_questions(subject, tmp_path: Path) -> None:
    """Answers, their order and what they are worth are those of a validation."""
    file = task_lists.vqa(tmp_path, "train2014", 16)
    asked = subject("model=albef_vqa", "data=questions", f"data.annotations={file}", "data.max_answers=4")
    source, method = asked.datamodule.source, asked.system.method
    held = list(source.rows_of("val"))
    lines = [
        {"image": str(source._entry(row.pictures[0]).path), "question": row.text, "answers": dict(row.told)}
        for row in held
    ]
    lines += [{"image": "none.jpg", "question": "is it?"}, {"question": "where?"}, {"image": lines[0]["image"]}]
    (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, lines)))
    job = job_of(tmp_path / "run", file=tmp_path / "asked.jsonl")
    found = Answer(top_k=2).run(asked, job)
    batch = asked.datamodule.on_after_batch_transfer(next(iter(asked.datamodule.val_dataloader())), 0)
    with torch.no_grad():
        wanted = method.validate(batch)
    assert found == {
        "answered": float(len(held)),
        "accuracy": pytest.approx(wanted["ranked_accuracy"].item(), abs=1e-6),
    }
    rows = rows_of(job.run_dir)
    with torch.no_grad():
        states = asked.system.net.ask(batch.image, batch.ids, batch.mask)
        scores = asked.system.net.rank(states, batch.candidates).softmax(1).sort(1, descending=True)
    for row, values, places in zip(rows, scores.values, scores.indices, strict=False):
        assert [*row["answers"]] == [source.answers[k] for k in places[:2]] and isinstance(row["free"], str)
        assert [*row["answers"].values()] == pytest.approx(values[:2].tolist(), abs=1e-4)
    errors = [row["error"] for row in rows[len(held) :]]
    assert (
        "none.jpg" in errors[0]
        and "no picture: set picture=FILE" in errors[1]
        and "none of the fields question" in errors[2]
    )
    assert "answers" in printed(job)


def test_sentences_about_two_pictures(subject, tmp_path: Path) -> None:
    file = task_lists.nlvr2(tmp_path, "train", 6)
    judged = subject("model=albef_nlvr2", "data=judged", f"data.annotations={file}")
    source = judged.datamodule.source
    held = list(source.rows_of("val"))
    lines = [
        {"images": [str(source._entry(n).path) for n in row.pictures], "sentence": row.text, "label": row.told}
        for row in held
    ]
    lines += [{"image": lines[0]["images"][0], "sentence": "one picture"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    job = job_of(tmp_path / "run", file=tmp_path / "rows.jsonl")
    found = Answer().run(judged, job)
    batch = judged.datamodule.on_after_batch_transfer(next(iter(judged.datamodule.val_dataloader())), 0)
    with torch.no_grad():
        wanted = judged.system.method.validate(batch)
    assert found == {"answered": float(len(held)), "accuracy": pytest.approx(wanted["accuracy"].item())}
    *rows, last = rows_of(job.run_dir)
    assert all(
        {*row["answers"]} == {"false", "true"} and sum(row["answers"].values()) == pytest.approx(1, abs=1e-5)
        for row in rows
    )
    assert last["error"] == "1 picture, but this run looks at 2"
    one = Answer(picture=[str(tmp_path / lines[0]["images"][0])] * 2, top_k=1)
    assert one.run(judged, job_of(tmp_path / "one", "a sentence"))["answered"] == 1


def test_a_run_without_answers_is_said(tmp_path: Path) -> None:
    captioned = VisionLanguage(None, SimpleNamespace(source=SimpleNamespace()), tmp_path)
    with pytest.raises(ValueError, match="task=answer needs a run that was fine-tuned for answers or labels"):
        Answer().run(captioned, job_of(tmp_path / "run", "is it?"))
