"""Reads lists of questions about pictures: VQA v2's two files, Visual Genome's, easy-VQA's, those of the ALBEF
reference, and your own as CSV, TSV, JSONL or JSON.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignlab.data.image_text.list_mixture import ListOf
from alignlab.data.image_text.list_values import checked_text
from alignlab.data.picture_tasks.answers import kind_of_answer, shared
from alignlab.data.picture_tasks.task_rows import (
    Bad,
    TaskRow,
    entries,
    field,
    has_pictures,
    own_split,
    pictures_of,
    refuse_stranger,
    tried,
)
from alignlab.files.text import json_items, kind_of

QUESTION_KEYS = ("question", "text", "sentence")
ANSWER_KEYS = ("answer", "answers")
FIELDS = ("answers", "worth")  # of a list, besides those that every list has
_GENOME_WORTH = 0.5  # salesforce/ALBEF b9727e4 dataset/vqa_dataset.py:64
_GENOME_FOLDERS = ("", "VG_100K", "VG_100K_2", "image")
_HEAD = 4096  # letters of a file that tell what it is
_WANTED = f"a picture, a question ({', '.join(QUESTION_KEYS)}) and its {' or '.join(ANSWER_KEYS)}"


def question_rows(one: ListOf, bad: Bad = None) -> Iterator[TaskRow]:
    """The questions of a list with the shares of their answers.

    Args:
        one: its `more` may hold `answers`, the file of VQA's annotations, and `worth`, what an answer counts (1;
            Visual Genome's: 0.5).
        bad: is told what is wrong with a row, which is then left out; None: it is raised.

    Raises:
        ValueError: naming file and row.
    """
    file = Path(one.file).expanduser()
    folder = Path(one.image_dir).expanduser() if one.image_dir is not None else file.parent
    worth = one.more.get("worth")
    if worth is not None and (isinstance(worth, bool) or not isinstance(worth, int | float) or not 0 < worth <= 1):
        raise ValueError(f"{one.key}.worth is {worth}; it must be a number above 0, at most 1")
    if file.suffix.lower() == ".json" and '"questions"' in (head := _head(file)) and not head.lstrip().startswith("["):
        yield from _vqa(file, one, folder, head, 1.0 if worth is None else worth, bad)
        return
    for where, row in entries(file, one.key, _understood, _WANTED, bad):
        if isinstance(row, dict) and "qas" in row:
            yield from tried(bad, _genome, row, where, folder, _GENOME_WORTH if worth is None else worth)
        elif isinstance(row, list):
            yield from tried(bad, _easy, row, where)
        else:
            yield from tried(bad, _own, row, where, worth)


def _head(file: Path) -> str:
    try:
        with file.open(encoding="utf-8", errors="replace") as text:
            return text.read(_HEAD)
    except OSError:  # whoever reads it says so
        return ""


def _understood(columns: Mapping[str, Any]) -> bool:
    return has_pictures(columns) and any(k in columns for k in QUESTION_KEYS) and any(k in columns for k in ANSWER_KEYS)


def _own(row: dict[str, Any], where: str, worth: float | None) -> Iterator[TaskRow]:
    """A row of your own list, or of one of the reference's, which calls Visual Genome's rows `vg`."""
    refuse_stranger(row, where)
    pictures, question = pictures_of(row, where), field(row, QUESTION_KEYS, where)
    given = next((row[key] for key in ANSWER_KEYS if row.get(key) not in (None, "", [])), None)
    if given is None:
        raise ValueError(f"{where}: the question {question!r} has no answer ({', '.join(ANSWER_KEYS)})")
    if worth is None:
        worth = _GENOME_WORTH if row.get("dataset") == "vg" else 1.0
    answers = _answers(given, where, worth)
    kind = row.get("kind") or kind_of_answer(answers)
    if not isinstance(kind, str) or not re.fullmatch(r"[\w-]+", kind):
        raise ValueError(f"{where}: kind is {kind!r}; it names metrics, so it is made of letters, digits, _ and -")
    yield TaskRow(where, own_split(row, where), pictures, question, answers, kind)


def _answers(given: Any, where: str, worth: float) -> list[tuple[str, float]]:
    """Answers with their shares: a text; a list of what people said; or an object with shares. A table's field may
    hold several, parted by |.
    """
    if isinstance(given, dict):
        if not all(isinstance(share, int | float) and 0 < share <= 1 for share in given.values()):
            raise ValueError(f"{where}: answers hold shares of people, above 0 and at most 1, not {kind_of(given)}")
        return [(checked_text(answer, where, "answers").strip(), worth * share) for answer, share in given.items()]
    several = given if isinstance(given, list) else given.split("|") if isinstance(given, str) else [given]
    several = [one.get("answer") if isinstance(one, dict) else one for one in several]
    texts = [checked_text(str(one) if isinstance(one, int) else one, where, "answer").strip() for one in several]
    if not any(texts):
        raise ValueError(f"{where}: every answer is empty")
    return shared([text for text in texts if text], worth)


def _easy(row: list[Any], where: str) -> Iterator[TaskRow]:
    """easy-VQA's rows: question, answer, number of the picture in the folder images."""
    if len(row) != 3 or not all(isinstance(one, str) for one in row[:2]) or not isinstance(row[2], int):
        raise ValueError(f"{where}: a row is a question, an answer and a picture's number, not {kind_of(row)}")
    answers = [(row[1].strip(), 1.0)]
    yield TaskRow(where, "", [f"images/{row[2]}.png"], row[0].strip(), answers, kind_of_answer(answers))


def _genome(row: dict[str, Any], where: str, folder: Path, worth: float) -> Iterator[TaskRow]:
    """A picture of Visual Genome's question_answers.json with all its questions."""
    number, several = row.get("id", row.get("image_id")), row["qas"]
    if not isinstance(number, int) or not isinstance(several, list):
        raise ValueError(f"{where}: a picture of Visual Genome has the keys id and qas, a list")
    name = f"{number}.jpg"
    name = next((f"{below}/{name}" for below in _GENOME_FOLDERS[1:] if (folder / below / name).exists()), name)
    for place, one in enumerate(several):
        here = f"{where}, question {place + 1}"
        refuse_stranger(one, here)
        answers = [(field(one, ("answer",), here).rstrip("."), worth)]
        yield TaskRow(here, "", [name], field(one, ("question",), here), answers, kind_of_answer(answers))


def _vqa(file: Path, one: ListOf, folder: Path, head: str, worth: float, bad: Bad) -> Iterator[TaskRow]:
    """VQA's questions with the ten answers of each from the file of its annotations."""
    part = re.search(r'"data_subtype"\s*:\s*"(\w+?)(?:-\w+)?(20\d\d)"', head) or re.search(
        r"_(train|val|test)(?:-\w+)?(20\d\d)_", file.name
    )
    if part is None:
        raise ValueError(f"{one.key}={file}: neither data_subtype nor the file's name tells whose pictures these are")
    part = "".join(part.groups())  # test-dev2015 asks about pictures of test2015
    answers = Path(one.more["answers"]).expanduser() if "answers" in one.more else _annotations_of(file)
    if answers is None or not answers.is_file():
        raise ValueError(
            f"{one.key}={file}: its answers, {answers or 'a file of annotations'}, aren't there; "
            "name them: {file: QUESTIONS, answers: ANNOTATIONS}"
        )
    given = {}
    for _, where, row in json_items(answers, f"{one.key}.answers", "annotations"):
        for made in tried(bad, _annotated, row, where, worth):
            given[made[0]] = made[1:]
    below: str | None = None
    for _, where, row in json_items(file, one.key, "questions"):
        if below is None and isinstance(row, dict):
            below = f"{part}/" if (folder / part).is_dir() else ""
        yield from tried(bad, _asked, row, where, given, f"{below}COCO_{part}_", answers)


def _annotations_of(questions: Path) -> Path | None:
    """v2_OpenEnded_mscoco_train2014_questions.json -> v2_mscoco_train2014_annotations.json"""
    name = re.sub(r"(OpenEnded|MultipleChoice)_", "", questions.name).replace("questions", "annotations")
    return None if name == questions.name else questions.with_name(name)


def _annotated(row: Any, where: str, worth: float) -> Iterator[tuple[Any, list, str]]:
    refuse_stranger(row, where)
    number, several, kind = row.get("question_id"), row.get("answers"), row.get("answer_type")
    if number is None or not isinstance(several, list):
        raise ValueError(f"{where}: an annotation has the keys question_id and answers, a list")
    answers = _answers(several, where, worth)
    yield number, answers, re.sub(r"\W", "_", kind) if isinstance(kind, str) else kind_of_answer(answers)


def _asked(row: Any, where: str, given: dict, name: str, answers: Path) -> Iterator[TaskRow]:
    refuse_stranger(row, where)
    number, picture = row.get("question_id"), row.get("image_id")
    if not isinstance(picture, int):
        raise ValueError(f"{where}: image_id is {kind_of(picture)}; it must be a number")
    if number not in given:
        raise ValueError(f"{where}: {answers} has no answers to question_id {number}")
    told, kind = given[number]
    yield TaskRow(where, "", [f"{name}{picture:012d}.jpg"], field(row, ("question",), where), told, kind)
