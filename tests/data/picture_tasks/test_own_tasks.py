"""Questions and judged sentences of lists, in the formats of their authors and in your own."""

import json
from collections import Counter
from pathlib import Path

import task_lists
from alignlab.data.image_text.list_mixture import ListOf
from alignlab.data.picture_tasks.answers import clean_answer
from alignlab.data.picture_tasks.judged_lists import judged_rows
from alignlab.data.picture_tasks.modules import JudgedDataModule, QuestionDataModule
from alignlab.data.picture_tasks.own_judged import OwnJudged
from alignlab.data.picture_tasks.own_questions import OwnQuestions
from alignlab.data.picture_tasks.question_lists import question_rows

import pytest

SIZE = 32


@pytest.fixture(scope="module")
def vqa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vqa")
    task_lists.vqa(folder, "train2014", 24)
    task_lists.vqa(folder, "val2014", 8, first=40)
    return folder


def questions(folder: Path, **settings) -> OwnQuestions:
    parts = (folder / f"v2_OpenEnded_mscoco_{part}_questions.json" for part in ("train2014", "val2014"))
    return OwnQuestions(str(next(parts)), SIZE, val_annotations=str(next(parts)), cache_gb=0.01, **settings)


def test_vqa_is_read_and_measured_as_its_authors_do(vqa: Path) -> None:
    source = questions(vqa, clean_answers=True)
    assert (source.num_rows("train"), source.num_rows("val")) == (24, 8)
    assert source.answers == ("dog", "yes", "no", "2")
    first = source.question(0, "val")
    assert first.answers == [("yes", 0.6), ("no", 0.3), ("2", 0.1)] and first.kind == "yes_no"
    assert source.question(1, "val").answers == [("dog", 1.0)] and source.question(1, "val").kind == "other"
    assert first.picture.shape == (SIZE, SIZE, 3)
    data = QuestionDataModule(lambda image_size: source, batch_size=4, num_workers=0, tokenizer_kind="wordpiece")
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    # the official formula: the mean over ten choices of nine people of min(1, who says so / 3)
    official = [sum(min(1, (said - (k < said)) / 3) for k in range(10)) / 10 for said in (6, 3, 1)]
    assert batch.credit[0].tolist() == pytest.approx([0, *official])
    assert data.tokenizer.unk_token_id not in batch.ids and len(batch.kind) == 4


def test_an_epoch_has_every_question_once_in_its_own_order(vqa: Path) -> None:
    source = questions(vqa)
    asked = [[source.question(24 * epoch + n, "train").text for n in range(24)] for epoch in range(2)]
    assert asked[0] != asked[1] and Counter(asked[0]) == Counter(asked[1])
    assert len({text for text in asked[0] if text.startswith("is")}) == 12
    again = questions(vqa)
    assert (again.question(30, "train").picture == source.question(30, "train").picture).all()
    file = str(vqa / "v2_OpenEnded_mscoco_train2014_questions.json")
    lists = [{"file": file, "weight": 0.5, "worth": 0.5}, file]
    twice = OwnQuestions(lists, SIZE, val_share=0.3, cache_gb=0.01)
    drawn = Counter(twice.question(n, "train").text for n in range(twice.num_train) if n >= 0)
    held = {row.text for row in twice.rows_of("val") if row.text.startswith("is")}
    shown = {text for text in drawn if text.startswith("is")}
    assert held and shown and not held & shown and len(held | shown) == 12, "no picture on both sides"
    assert twice.num_train * 2 == 3 * len(twice._parts[1])


def own(file: Path, reader=question_rows, **more) -> list[tuple]:
    return [tuple(row)[1:] for row in reader(ListOf(str(file), None, more=more))]


def test_questions_of_every_list_are_the_same(tmp_path: Path) -> None:
    rows = [{"image": "a.jpg", "question": "how many dogs", "answer": ["two", "two", "3", "two"], "split": "dev"}]
    rows += [{"image": "b.jpg", "question": "is it red, or green", "answers": {"yes": 0.9}}]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "own.json").write_text(json.dumps(rows))
    lines = [
        'Image;Question;Answer;Split\r\na.jpg;how many dogs;two|two|3|two;val\r\n"b.jpg";"is it red, or green";yes;'
    ]
    (tmp_path / "own.csv").write_text("\ufeff" + lines[0], encoding="utf-8")
    wanted = [
        ("val", ["a.jpg"], "how many dogs", [("two", 0.75), ("3", 0.25)], "number"),
        ("", ["b.jpg"], "is it red, or green", [("yes", 0.9)], "yes_no"),
    ]
    assert own(tmp_path / "own.jsonl") == own(tmp_path / "own.json") == wanted
    assert own(tmp_path / "own.csv") == [wanted[0], (*wanted[1][:3], [("yes", 1.0)], "yes_no")]
    genome = [{"id": 7, "qas": [{"question": "What is red?", "answer": "A bus.", "image_id": 7, "qa_id": 1}]}]
    (tmp_path / "question_answers.json").write_text(json.dumps(genome))
    (tmp_path / "VG_100K_2").mkdir()
    (tmp_path / "VG_100K_2" / "7.jpg").touch()
    wanted = [("", ["VG_100K_2/7.jpg"], "What is red?", [("A bus", 0.5)], "other")]
    assert own(tmp_path / "question_answers.json") == wanted
    published = [{"image": "image/7.jpg", "question": "What is red?", "answer": "a bus", "dataset": "vg"}]
    (tmp_path / "vg_qa.json").write_text(json.dumps(published))
    assert own(tmp_path / "vg_qa.json") == [("", ["image/7.jpg"], "What is red?", [("a bus", 0.5)], "other")]
    assert own(tmp_path / "vg_qa.json", worth=1) == [("", ["image/7.jpg"], "What is red?", [("a bus", 1)], "other")]
    (tmp_path / "easy.json").write_text('[["what shape?", "circle", 3]]')
    assert own(tmp_path / "easy.json") == [("", ["images/3.png"], "what shape?", [("circle", 1.0)], "other")]
    assert [clean_answer(one) for one in ("A Bus.", "two", "1,000", "3.5", "t-shirt", "The", "it's")] == [
        "bus", "2", "1000", "3.5", "t-shirt", "the", "it's",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"image": "a", "question": "q"}', "line 1: the question 'q' has no answer"),
        ('{"image": "a", "answer": "q"}', r"line 1: there is no question \(or text, sentence\)"),
        ('{"image": "a", "question": "q", "answer": 1.5}', "answer is the number 1.5; it must be a text"),
        ('{"image": "a", "question": "q", "answer": [" "]}', "every answer is empty"),
        ('{"image": "a", "question": "q", "answers": {"yes": 3}}', "shares of people, above 0 and at most 1"),
        ('{"image": "a", "question": "q", "answer": "y", "kind": "a b"}', "kind is 'a b'; it names metrics"),
        ('{"question": "q", "answer": "y", "foto": "a"}', "there is no image"),
    ],
)
def test_a_wrong_question_is_said(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        list(question_rows(ListOf(str(tmp_path / "a.jsonl"), None)))
    assert "\n" not in str(caught.value)


def test_vqa_without_its_answers_is_said(tmp_path: Path) -> None:
    file = task_lists.vqa(tmp_path, "train2014", 4)
    (tmp_path / "v2_mscoco_train2014_annotations.json").rename(tmp_path / "other.json")
    with pytest.raises(ValueError, match=r"train2014_annotations.json, aren't there; name them: \{file: QUESTIONS"):
        own(file)
    assert len(own(file, answers=str(tmp_path / "other.json"))) == 4
    (tmp_path / "other.json").write_text('{"annotations": []}')
    with pytest.raises(ValueError, match=r"row 1: .*other.json has no answers to question_id 0"):
        own(file, answers=str(tmp_path / "other.json"))


def test_nlvr2_and_snli_ve_are_read_as_their_authors_give_them(tmp_path: Path) -> None:
    train, dev = task_lists.nlvr2(tmp_path, "train", 5), task_lists.nlvr2(tmp_path, "dev", 2)
    source = OwnJudged(str(train), SIZE, val_annotations=str(dev), cache_gb=0.01)
    assert source.labels == ("false", "true")
    assert (source.num_rows("train"), source.num_rows("val")) == (10, 4)
    held = source.row(0, "val")
    assert held.label == 1 and held.text == "The left image 0 has 0 dogs." and len(held.pictures) == 2
    assert (held.pictures[0] != held.pictures[1]).any(), "the left one is the first"
    pictures = own(train, judged_rows)[8][1]
    assert pictures == ["images/train/1/train-4-0-img0.png", "images/train/1/train-4-0-img1.png"]
    data = JudgedDataModule(lambda image_size: source, batch_size=4, num_workers=0, tokenizer_kind="wordpiece")
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.image.shape == (4, 2, 3, SIZE, SIZE) and set(batch.label.tolist()) <= {0, 1}

    lists = [task_lists.snli_ve(tmp_path, "train", 13), task_lists.snli_ve(tmp_path, "dev", 4, first=13)]
    entailed = OwnJudged(
        str(lists[0]), SIZE, val_annotations=str(lists[1]), image_dir=str(tmp_path / "flickr30k-images"), cache_gb=0.01
    )
    assert entailed.labels == ("contradiction", "neutral", "entailment")
    assert (entailed.num_rows("train"), entailed.num_rows("val")) == (12, 3), (
        "rows without an agreed label are left out"
    )
    assert [entailed.row(n, "val").label for n in range(3)] == [1, 0, 2]
    assert entailed.row(0, "val").text == "A dog is number 13."


def test_judged_rows_of_every_list_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("left,right,sentence,label\na.jpg,b.jpg,two dogs,TRUE\n")
    (tmp_path / "own.jsonl").write_text('{"images": ["a.jpg", "b.jpg"], "text": "two dogs", "label": true}')
    (tmp_path / "nlvr_train.json").write_text(
        '[{"sentence": "two dogs", "label": "True", "images": ["a.jpg", "b.jpg"]}]'
    )
    wanted = [("", ["a.jpg", "b.jpg"], "two dogs", "true", "")]
    assert [own(tmp_path / name, judged_rows) for name in ("own.csv", "own.jsonl", "nlvr_train.json")] == [wanted] * 3
    (tmp_path / "ve_train.json").write_text('[{"image": "4711", "sentence": "a dog", "label": "neutral"}]')
    assert own(tmp_path / "ve_train.json", judged_rows) == [("", ["4711.jpg"], "a dog", "neutral", "")]


def test_labels_that_nobody_trained_are_said(tmp_path: Path) -> None:
    for n in range(6):
        task_lists.picture(tmp_path / f"{n}.png", n)
    rows = [f"{n}.png,text {n},{'abc'[n % 3]},{'val' if n > 3 else ''}" for n in range(6)]
    (tmp_path / "rows.csv").write_text("image,text,label,split\n" + "\n".join(rows))
    source = OwnJudged(str(tmp_path / "rows.csv"), SIZE, cache_gb=0.01)
    assert source.labels == ("a", "b", "c") and source.row(1, "val").label == 2
    given = OwnJudged(str(tmp_path / "rows.csv"), SIZE, labels=["c", "B", "a"], cache_gb=0.01)
    assert given.row(1, "val").label == 0
    with pytest.raises(ValueError, match=r"line 4: the label 'c' is none of labels=\['a', 'b'\]"):
        OwnJudged(str(tmp_path / "rows.csv"), SIZE, labels=["a", "b"])
    (tmp_path / "rows.csv").write_text("image,text,label,split\n" + "\n".join([*rows[:2], *rows[4:]]))
    with pytest.raises(ValueError, match=r"line 5: the label 'c' is none of those trained on, \('a', 'b'\)"):
        OwnJudged(str(tmp_path / "rows.csv"), SIZE, cache_gb=0.01)


def test_broken_pictures_and_rows_are_left_out_of_tasks(tmp_path: Path) -> None:
    """A row whose picture is broken gives way to another of its batch; held-out ones are found at the start."""
    for n in range(8):
        task_lists.picture(tmp_path / f"{n}.png", n)
    (tmp_path / "1.png").write_text("<html>404</html>")
    (tmp_path / "7.png").write_bytes((tmp_path / "6.png").read_bytes()[:300])
    (tmp_path / "0.png").write_bytes(b"")
    rows = [
        {"image": f"{n}.png", "question": f"q {n}", "answer": "yes", "split": "val" if n > 4 else ""} for n in range(8)
    ]
    rows += [{"image": "nowhere.png", "question": "q", "answer": "no"}, {"image": "3.png", "question": "q"}]
    (tmp_path / "rows.jsonl").write_text("\n".join([*map(json.dumps, rows), "no json"]))
    with pytest.raises(ValueError, match="line 10: the question 'q' has no answer"):
        OwnQuestions(str(tmp_path / "rows.jsonl"), SIZE, cache_gb=0.01)

    def source(image_size: int) -> OwnQuestions:
        return OwnQuestions(str(tmp_path / "rows.jsonl"), image_size, on_error="skip", max_answers=2, cache_gb=0.01)

    data = QuestionDataModule(source, image_size=SIZE, batch_size=4, num_workers=0, tokenizer_kind="wordpiece")
    data.setup("fit")
    assert (data.source.num_rows("train"), data.source.num_rows("val")) == (4, 2)
    batch = next(iter(data.train_dataloader()))
    assert len(batch.image) == 4 and len({image.sum().item() for image in batch.image}) == 3
    reasons = data.source.left_out.reasons
    parts = ("line 10: the question", "line 11: no JSON", "0.png is empty", "no picture", "7.png can't", "1.png can't")
    assert len(reasons) == len(parts)
    for wanted, reason in zip(parts, reasons, strict=True):
        assert wanted in reason and "rows.jsonl, line" in reason
