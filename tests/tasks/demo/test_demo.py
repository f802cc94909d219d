"""What stands behind the demo's page, without the page: Gradio isn't needed."""

import asyncio
import socket
import sys
import threading
from pathlib import Path

from alignlab.configs.command_line import arguments
from alignlab.evaluation.encoding import encode_retrieval_set
from alignlab.inference.backends.scripted import ScriptedBackend
from alignlab.prompting.technique import Message
from alignlab.runs.building import build
from alignlab.tasks.demo import words
from alignlab.tasks.demo.asking import Asking
from alignlab.tasks.demo.judging import judged
from alignlab.tasks.demo.looking import Looking
from alignlab.tasks.demo.server import guarded, listen
from alignlab.tasks.demo.talking import Talking
from alignlab.tasks.demo.task import Demo
from alignlab.tasks.pictures.answer import Answer
from alignlab.tasks.pictures.pair_scores import score_texts
from alignlab.tasks.pictures.subject import VisionLanguage
from alignlab.tasks.rewards import load_rewarded
from language_job import job_of, subject_of
from pictures_run import load_subject, write_pictures, write_run
from served_model import write_reward_model

import pytest
import torch


@pytest.fixture
def looking(vision: VisionLanguage, tmp_path: Path) -> Looking:
    return Looking(vision, job_of(tmp_path / "run"), tmp_path / "lasting", None, str(tmp_path / "index"), 1000)


def test_pictures_are_found_by_words(looking: Looking, tmp_path: Path) -> None:
    vision, told = looking.subject, []
    caption = vision.datamodule.caption(3)
    held_out = encode_retrieval_set(vision.system, vision.datamodule.retrieval_dataloader())
    expected = (held_out.text_features[3] @ held_out.image_features.T).sort(descending=True)
    hits, about = looking.search(f" {caption} ", "", 4, on_progress=lambda *counts: told.append(counts))
    assert [hit.score for hit in hits] == pytest.approx(expected.values[:4].tolist(), abs=1e-5)
    assert [int(hit.path.stem) for hit in hits] == expected.indices[:4].tolist() and "of 12 pictures" in about
    assert (
        hits[0].label.endswith(vision.datamodule.caption(int(expected.indices[0]))) and max(hits[0].picture.size) == 320
    )
    assert told[-1] == (12, 12) and len(told) == 3
    write_pictures(vision, tmp_path / "own")
    (tmp_path / "own" / "broken.png").write_text("no picture")
    again, about = looking.search(caption, str(tmp_path / "own"), 12, rerank=vision.matches)
    assert "broken.png" in about and "\n" not in about and {hit.path.parent.name for hit in again} == {"own"}
    if vision.matches:
        assert [hit.score for hit in again] == pytest.approx(
            [score_texts(vision, hit.path, [caption])[0].score for hit in again], abs=1e-4
        )
    for text, place in (("  ", ""), ("a", str(tmp_path / "nowhere")), ("a", str(tmp_path / "run"))):
        with pytest.raises(ValueError) as caught:
            looking.search(text, place, 4)
        assert "\n" not in str(caught.value)


def test_texts_are_compared_and_words_pointed_at(looking: Looking, tmp_path: Path) -> None:
    vision = looking.subject
    write_pictures(vision, tmp_path / "own")
    picture, lines = str(tmp_path / "own" / "00.png"), "a red heart\n\n a dog left of a cat "
    fits = looking.match(picture, lines)
    scores = {text: score_texts(vision, Path(picture), [text])[0] for text in ("a red heart", "a dog left of a cat")}
    assert {fit.text: pytest.approx(fit.similarity, abs=1e-5) for fit in fits} == {
        text: score.similarity for text, score in scores.items()
    }
    assert sum(fit.share for fit in fits) == pytest.approx(1.0) and looking.match(picture, "a")[0].share is None
    assert ("match" in words.fits_table(fits)) == (fits[0].probability is not None)
    if looking.points:
        assert [word for _, word in looking.heat(picture, "a dog left of a cat\na red heart")] == ["dog", "cat"]
    (tmp_path / "broken.png").write_text("no picture")
    for path, text, said in (
        (picture, " \n", "texts"),
        (None, "a", "drop one"),
        (str(tmp_path / "broken.png"), "a", "broken"),
    ):
        with pytest.raises(ValueError, match=said):
            looking.match(path, text)


def test_a_question_is_answered_as_the_task_does(composed, tmp_path: Path) -> None:
    torch.manual_seed(0)
    datamodule, system = build(composed(*arguments(["model=albef_vqa", "data.num_val=12", "data.num_workers=0"])))
    system.configure_model()
    vision = VisionLanguage(system.eval(), datamodule, tmp_path)
    asking = Asking(vision, tmp_path / "lasting")
    taken = [asking.example(number) for number in range(3)]
    assert len({example.text for example in taken} | {example.pictures[0] for example in taken}) == 6
    held = [
        vision.datamodule.source.question(serial, "val") for serial in range(vision.datamodule.source.num_rows("val"))
    ]
    of_text = {row.text: [answer for answer, _ in row.answers] for row in held}
    assert taken[1].right == " or ".join(of_text[taken[1].text])
    picture = str(taken[1].pictures[0])
    found = asking.ask([picture], f" {taken[1].text} ")
    job = job_of(tmp_path / "job", taken[1].text)
    Answer(picture, top_k=8).run(vision, job)
    (row,) = job.predictions.rows.values()
    assert list(row["answers"]) == list(found.probabilities) and len(found.probabilities) == 8
    assert [*row["answers"].values()] == pytest.approx([*found.probabilities.values()], abs=1e-5)
    table = words.answers_table(found._replace(free="<b>"), "two")
    assert "right: two" in table and "&lt;b&gt;" in table and table.count("<tr>") == 9
    (tmp_path / "broken.png").write_text("no picture")
    for given, text, said in (
        ([picture], " ", "the question is missing"),
        ([None], "is it?", "a picture is missing: drop one"),
        ([str(tmp_path / "broken.png")], "is it?", "broken"),
    ):
        with pytest.raises(ValueError, match=said):
            asking.ask(given, text)


@pytest.mark.slow
def test_a_sentence_about_two_pictures_is_judged(tmp_path: Path) -> None:
    vision = load_subject(write_run(tmp_path / "run", "albef_nlvr2", "data.hide=pictures", source="emoji_scenes_nlvr2"))
    asking = Asking(vision, tmp_path / "lasting")
    assert (asking.pictures, asking.questions, asking.blind_to) == (2, False, "pictures")
    example = asking.example(5)
    left, right = map(str, example.pictures)
    assert example.right in ("false", "true") and set(asking.ask([left, right], example.text).probabilities) == {
        "false",
        "true",
    }
    with pytest.raises(ValueError, match="1 of 2 pictures are missing"):
        asking.ask([left, None], example.text)


def test_two_models_answer_side_by_side(chat_model: Path) -> None:
    backends = [ScriptedBackend(["Hello.", "Yes."]), ScriptedBackend(["Good day.", "No."])]
    talking = Talking([subject_of(chat_model, backend=backend) for backend in backends], "Be a bee.")
    dialogues = talking.beginning()
    *some, last = talking.turn(dialogues, " Hi ", 0.0, 32, "somebody")
    assert [said.text for said in last] == ["Hello.", "Good day."] and all(said.done for said in last)
    assert some and not all(said.done for said in some[0])
    assert dialogues[1] == [Message("system", "Be a bee."), Message("user", "Hi"), Message("assistant", "Good day.")]
    *_, last = talking.turn(dialogues, "Really?", 0.0, 32)
    assert [said.text for said in last] == ["Yes.", "No."] and backends[0].prompts[1].count("<assistant>") == 2
    with pytest.raises(ValueError, match="nothing to answer"):
        next(talking.turn(dialogues, "  ", 0.0, 8))


def test_an_answer_is_stopped_and_an_error_is_of_one_side(chat_model: Path, language_model: Path) -> None:
    long, short = subject_of(chat_model), subject_of(language_model)  # contexts of 512 and of 64 tokens
    talking = Talking([long, short])
    dialogues = talking.beginning()
    *_, last = talking.turn(dialogues, "x" * 100, 0.0, 3)
    assert last[0].error is None and "64" in last[1].error and [len(dialogue) for dialogue in dialogues] == [2, 0]
    turn = Talking([long]).turn(talking.beginning()[:1], "Hi", 0.0, 400)
    next(turn)
    turn.close()  # whoever asked has left
    for thread in [thread for thread in threading.enumerate() if thread.name == "model 0"]:
        thread.join(timeout=20)
        assert not thread.is_alive(), "it went on for nobody"
    alone, known = Talking([long]), [[]]
    turn = alone.turn(known, "Hi", 0.0, 400, "me")
    next(turn)
    alone.stop("me")
    *_, last = turn
    assert last[0].done and last[0].error is None and len(known[0]) == 2  # what it had said by then stands
    *_, whole = alone.turn([[]], "Hi", 0.0, 400)
    assert len(last[0].text) < len(whole[0].text)


def test_texts_are_judged_best_first(chat_model: Path, tmp_path: Path) -> None:
    likely = judged(subject_of(chat_model), "", "abc\n\nabcabcabc\n")
    assert len(likely) == 2 and likely[0].numbers["bits per byte"] <= likely[1].numbers["bits per byte"]
    rewarded = load_rewarded(str(write_reward_model(tmp_path / "reward")))
    good = judged(rewarded, "is it good?", "yes\nno\n" + "x" * 600)
    assert good[0].numbers["reward"] >= good[1].numbers["reward"] and "512" in good[2].error
    table = words.judged_table([*good, *judged(rewarded, "", "<img src=x>")], "<b>")
    assert "<img" not in table and "<b>" not in table and "&lt;img src=x&gt;" in table
    with pytest.raises(ValueError, match="texts"):
        judged(rewarded, "a", " \n ")


def test_what_the_demo_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ValueError, match=r"gradio is missing: pip install 'alignlab\[demo\]'"):
        Demo()
    for wrong in ({"held_out": 0}, {"port": 0}, {"port": 70000}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Demo(**wrong)
    with listen(None) as waiting:
        host, port = waiting.getsockname()
        assert host == "127.0.0.1" and 7860 <= port < 7960
        with pytest.raises(ValueError, match=f"port={port} on 127.0.0.1: .* in use"):
            listen(port)
        with socket.create_connection((host, port), timeout=5):
            pass


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        (b"127.0.0.1:7860", None, 200),
        (b"localhost:7860", b"http://localhost:7860", 200),
        (b"evil.example:7860", None, 403),  # a name of somebody's that points here
        (b"127.0.0.1:7860", b"https://evil.example", 403),
        (b"127.0.0.1:7860", b"http://127.0.0.1:8000", 403),
        (b"127.0.0.1:7860", b"null", 403),
        (b"[::bad", None, 403),
    ],
)
def test_strangers_pages_get_no_answer(host: bytes, origin: bytes | None, status: int) -> None:
    async def app(scope: dict, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"page"})

    sent: list[dict] = []

    async def send(message: dict) -> None:
        sent.append(message)

    headers = [(b"host", host), *([(b"origin", origin)] if origin else [])]
    asyncio.run(guarded(app)({"type": "http", "headers": headers}, None, send))
    assert sent[0]["status"] == status
    if status == 200:
        assert b"default-src 'self'" in dict(sent[0]["headers"])[b"content-security-policy"]
