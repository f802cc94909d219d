"""Documents of the four kinds of data, their texts by path, and what a step decides about one."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alignlab.corpus.letters import Letters
from alignlab.data.pictures.members import Member
from alignlab.files.text import flaw, kind_of

KINDS = ("text", "captions", "sft", "pairs")
TEXT_KEYS = ("text", "content", "document", "raw_content")
CAPTION_KEYS = ("caption", "captions", "txt")
PICTURE_KEYS = (
    "image",
    "image_path",
    "image_file",
    "file_name",
    "filename",
    "filepath",
    "path",
    "img",
    "picture",
    "url",
)
_SIDES = ("chosen", "rejected")
_ANSWERS = ("completion", "response", "output")
Path_ = tuple[Any, ...]


class Verdict(NamedTuple):
    """What a step decides about one document that it doesn't keep as it is.

    `edits` are new texts by path; without them the document is dropped, unless the verdict only `tells`.
    """

    reason: str
    evidence: Mapping[str, Any]
    edits: Mapping[Path_, str] | None = None
    tells: bool = False


class Document:
    """A row of a file.

    Attributes:
        line: from 0, within its part of the file.
        raw: the line as it stands in the file, with its end.
        row: its fields.
        leaves: path and text of everything in it that is read.
        wrong: why it is none, if it isn't.
        group: which picture its text is about; "" where it is about none.
        picture: that picture, where it lies in a shard.
    """

    __slots__ = ("group", "leaves", "line", "picture", "raw", "row", "split", "wrong")

    def __init__(self, line: int, raw: bytes, row: dict[str, Any] | None, wrong: str | None = None) -> None:
        self.line, self.raw, self.row, self.wrong = line, raw, row, wrong
        self.leaves: list[tuple[Path_, str]] = []
        self.group, self.split = "", ""
        self.picture: Member | None = None

    @property
    def text(self) -> str:
        """All that is read of it, as one."""
        return self.leaves[0][1] if len(self.leaves) == 1 else "\n".join(text for _, text in self.leaves)

    def edited(self, edits: Mapping[Path_, str]) -> None:
        """Puts new texts in the places of old ones."""
        self.leaves = [(path, edits.get(path, text)) for path, text in self.leaves]
        for path, text in edits.items():
            place = self.row
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = text


class Batch:
    """Documents that steps look at together.

    Attributes:
        folder: where their files lie.
        alive: (D,) which no step has dropped.
        languages: of each, as the step `language` said; "" where it has said nothing.
    """

    def __init__(self, documents: Sequence[Document], folder: Path | None = None) -> None:
        self.documents, self.folder = documents, folder or Path()
        self.alive = np.ones(len(documents), bool)
        self.languages = [""] * len(documents)

    @cached_property
    def texts(self) -> list[str]:
        """(D,) each document's text as it stands now."""
        return [document.text for document in self.documents]

    @cached_property
    def letters(self) -> Letters:
        """Of the texts as they stand now."""
        return Letters(self.texts)

    def living(self) -> Iterator[tuple[int, Document]]:
        """Numbers and documents that no step has dropped."""
        for number in np.flatnonzero(self.alive).tolist():
            yield number, self.documents[number]

    def edit(self, number: int, edits: Mapping[Path_, str]) -> None:
        """Changes a document's texts; what was found out about them is forgotten."""
        self.documents[number].edited(edits)
        self.__dict__.pop("texts", None)
        self.__dict__.pop("letters", None)


def kind_of_columns(columns: Sequence[str]) -> str | None:
    """Which kind of data has such columns; None: none."""
    have = {name.lower() for name in columns}
    if set(_SIDES) <= have:
        return "pairs"
    if "messages" in have or "conversations" in have or (have & {*_ANSWERS}):
        return "sft"
    if have & set(CAPTION_KEYS):
        return "captions"
    if have & set(TEXT_KEYS):
        return "captions" if have & set(PICTURE_KEYS[:-3]) else "text"
    return None


def read(document: Document, kind: str) -> None:
    """Finds a document's texts by its kind; `wrong` says what is missing or of another kind."""
    row = document.row
    names = {name.lower(): name for name in row}
    try:
        document.leaves = _FIND[kind](row, names)
    except ValueError as error:
        document.wrong = f"columns: {error}"
        return
    if not any(text.strip() for _, text in document.leaves):
        document.wrong = "no text"
    for path, text in document.leaves:
        if not text.isascii() and (wrong := flaw(text)):
            document.wrong = f"half a letter: {'.'.join(map(str, path))} holds {wrong}"
    picture = next((row[names[key]] for key in PICTURE_KEYS if key in names), "") if kind == "captions" else ""
    document.group = picture if isinstance(picture, str) else ""
    split = row.get(names.get("split"), "")
    document.split = split if isinstance(split, str) else ""


def _text(row: Mapping[str, Any], names: Mapping[str, str]) -> list[tuple[Path_, str]]:
    return _first(row, names, TEXT_KEYS)


def _captions(row: Mapping[str, Any], names: Mapping[str, str]) -> list[tuple[Path_, str]]:
    return _first(row, names, (*CAPTION_KEYS, *TEXT_KEYS))


def _first(row: Mapping[str, Any], names: Mapping[str, str], keys: Sequence[str]) -> list[tuple[Path_, str]]:
    name = next((names[key] for key in keys if key in names), None)
    if name is None:
        raise ValueError(f"no column {' or '.join(keys)}, only {', '.join(names) or 'nothing'}")
    return _leaves(row, (name,))


def _sft(row: Mapping[str, Any], names: Mapping[str, str]) -> list[tuple[Path_, str]]:
    for key in ("messages", "conversations"):
        if key in names:
            return _leaves(row, (names[key],))
    answer = next((names[key] for key in _ANSWERS if key in names), None)
    if answer is None:
        return _text(row, names)
    asked = [names[key] for key in ("system", "instruction", "prompt", "input", "question") if key in names]
    found = [leaf for name in asked if row[name] for leaf in _leaves(row, (name,))]
    return [*found, *_leaves(row, (answer,))]


def _pairs(row: Mapping[str, Any], names: Mapping[str, str]) -> list[tuple[Path_, str]]:
    missing = [key for key in _SIDES if key not in names]
    if missing:
        raise ValueError(f"no column {' and '.join(missing)}, only {', '.join(names) or 'nothing'}")
    prompt = _leaves(row, (names["prompt"],)) if row.get(names.get("prompt")) else []
    return [*prompt, *_leaves(row, (names["chosen"],)), *_leaves(row, (names["rejected"],))]


def _leaves(row: Mapping[str, Any], path: Path_) -> list[tuple[Path_, str]]:
    value: Any = row
    for key in path:
        value = value[key]
    if isinstance(value, str):
        return [(path, value)]
    if isinstance(value, list) and value:
        found = []
        for number, one in enumerate(value):
            if isinstance(one, dict):  # a message of a chat
                key = next((key for key in ("content", "value") if key in one), None)
                if key is None:
                    raise ValueError(f"message {number + 1} of {path[0]} has no content")
                found += _leaves(row, (*path, number, key)) if one[key] is not None else []
            else:
                found += _leaves(row, (*path, number))
        return found
    raise ValueError(f"{'.'.join(map(str, path))} is {kind_of(value)}; it must be a text")


_FIND = {"text": _text, "captions": _captions, "sft": _sft, "pairs": _pairs}
