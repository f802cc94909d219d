"""Reads lists of sentences about pictures with labels: NLVR2's and SNLI-VE's JSONL, those of the ALBEF reference, and
your own as CSV, TSV, JSONL or JSON.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from alignlab.data.image_text.list_mixture import ListOf
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
from alignlab.data.pictures.members import Member
from alignlab.files.text import kind_of

SENTENCE_KEYS = ("sentence", "sentence2", "text", "caption", "statement", "hypothesis")
LABEL_KEYS = ("label", "gold_label")
NOBODY_KNOWS = "-"  # SNLI's label where annotators didn't agree
_WANTED = f"pictures, a sentence ({', '.join(SENTENCE_KEYS)}) and its {' or '.join(LABEL_KEYS)}"
_NLVR2 = re.compile(r"(.+)-\d+")  # its rows name pictures without their sentence's number


def judged_rows(one: ListOf, bad: Bad = None) -> Iterator[TaskRow]:
    """The sentences of a list with their labels as texts in lower case; rows whose label is "-" too.

    Args:
        one: which list.
        bad: is told what is wrong with a row, which is then left out; None: it is raised.

    Raises:
        ValueError: naming file and row.
    """
    file = Path(one.file).expanduser()
    folder = Path(one.image_dir).expanduser() if one.image_dir is not None else file.parent
    for where, row in entries(file, one.key, _understood, _WANTED, bad):
        yield from tried(bad, _row, row, where, folder)


def _understood(columns: Mapping[str, Any]) -> bool:
    return (
        (has_pictures(columns) or "flickr30k_id" in columns)
        and any(k in columns for k in SENTENCE_KEYS)
        and any(k in columns for k in LABEL_KEYS)
    )


def _row(row: Any, where: str, folder: Path) -> Iterator[TaskRow]:
    refuse_stranger(row, where)
    if "identifier" in row and not has_pictures(row):
        pictures = _nlvr2(row, where, folder)
    elif row.get("flickr30k_id") not in (None, "") and "images" not in row:
        pictures = [f"{str(row['flickr30k_id']).removesuffix('.jpg')}.jpg"]
    else:
        # the reference's list of SNLI-VE names pictures without their suffix
        pictures = [name if _is_whole(name) else f"{name}.jpg" for name in pictures_of(row, where)]
    sentence = field(row, ("sentence2",) if "flickr30k_id" in row else SENTENCE_KEYS, where)
    given = next((row[key] for key in LABEL_KEYS if row.get(key) not in (None, "")), None)
    if not isinstance(given, str | int):  # truth values too
        what = "no label" if given is None else f"the label {kind_of(given)}"
        raise ValueError(f"{where}: the sentence {sentence!r} has {what} ({', '.join(LABEL_KEYS)})")
    yield TaskRow(where, own_split(row, where), pictures, sentence, str(given).strip().lower())


def _is_whole(name: str | Member) -> bool:
    return isinstance(name, Member) or bool(PurePosixPath(name).suffix)


def _nlvr2(row: dict[str, Any], where: str, folder: Path) -> list[str]:
    """train-10171-0-0 in the directory 73: train/73/train-10171-0-img0.png and -img1.png; dev-850-0-0: dev/...

    Pictures may lie below images/, by their split and directory, or flat.
    """
    match = _NLVR2.fullmatch(field(row, ("identifier",), where))
    if match is None:
        raise ValueError(f"{where}: identifier is {kind_of(row['identifier'])}; NLVR2's is like dev-850-0-0")
    pair, part = match[1], match[1].split("-")[0]
    inner = [f"images/{part}", part, ""]
    if "directory" in row:
        inner = [f"images/{part}/{row['directory']}", f"{part}/{row['directory']}", f"{row['directory']}", ""]
    below = next((place for place in inner if (folder / place / f"{pair}-img0.png").exists()), inner[-1])
    return [str(PurePosixPath(below) / f"{pair}-img{side}.png") for side in (0, 1)]
