"""What an inference run is asked: one prompt, a file of them, or a pipe."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from alignlab.data import tables
from alignlab.files.text import json_items, json_lines, kind_of, meant, read_lines
from alignlab.prompting.technique import Message
from alignlab.tasks.fields import QUESTIONS, Form

log = logging.getLogger(__name__)


class Item(NamedTuple):
    """One thing to work on."""

    id: str
    text: str
    fields: dict[str, Any]  # all that its line holds, and what the form made of it
    before: tuple[Message, ...] = ()  # earlier turns of the dialogue whose last is `text`
    error: str | None = None  # why its row holds nothing to work on

    def check(self) -> None:
        """Raises ValueError where its row holds nothing to work on."""
        if self.error is not None:
            raise ValueError(self.error)


def read_items(prompt_text: object, file: str | None, pipe: TextIO, form: Form = QUESTIONS) -> list[Item]:
    """The items of a run, from the first of these that is there: `prompt_text`, `input`, a pipe.

    A .jsonl file has an object a line, a .json file one a line too or a list of them, a .csv or .tsv file a row a line
    under a header; `form` reads them, and a row that it can't read is an item with `error`. Any other file and a pipe
    have a text a line. Ids are line numbers from 0 where none are given; blank lines are skipped.
    Raises ValueError where there is nothing, a line is no row at all, or two items share an id.
    """
    if prompt_text is not None and file is not None:
        raise ValueError("prompt_text and input are both set; keep one")
    if prompt_text is not None:
        return [Item("0", str(prompt_text), {})]
    if file is not None:
        rows = _rows(file, form)
        items = list(_lines(read_lines(file, "input")) if rows is None else _items(rows, file, form))
    elif not pipe.isatty():
        items = list(_lines(_piped(pipe)))
    else:
        raise ValueError("nothing to work on: give prompt_text=..., input=FILE or pipe texts in, a line each")
    if not items:
        raise ValueError(f"{'the pipe' if file is None else f'input={file}'} holds no text")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise ValueError(f"input={file}: two lines have the id {item.id}")
        seen.add(item.id)
    return items


def _lines(lines: Iterable[str]) -> Iterator[Item]:
    for number, line in enumerate(lines):
        if line.strip():
            yield Item(str(number), line, {})


def _piped(pipe: TextIO) -> Iterator[str]:
    raw = getattr(pipe, "buffer", None)  # read as bytes, line by line, so that a wrong one has a number
    for number, line in enumerate(pipe if raw is None else raw, 1):
        try:
            text = line if raw is None else line.decode(pipe.encoding)
        except UnicodeDecodeError as error:
            what = f"no {error.encoding.upper()} text ({error.reason})"
            raise ValueError(f"line {number} of the pipe holds what is {what}") from None
        yield from text.removesuffix("\n").removesuffix("\r").split("\r")


def _rows(file: str, form: Form) -> Iterable[tuple[int, str, dict[str, Any]]] | None:
    """Number, place and fields of every row; None for a file of plain lines."""
    suffix = Path(file).suffix.lower()
    if suffix == ".json":
        first = next((line for line in read_lines(file, "input") if line.strip()), "")
        return _listed(file) if first.lstrip().startswith("[") else json_lines(file, "input")
    if suffix == ".jsonl":
        return json_lines(file, "input")
    if suffix in tables.SUFFIXES:
        wanted = f"it must name one of {', '.join(name for name in form.known if name != 'id')} (a text a line: .txt)"
        table = tables.read_table(Path(file), "input", lambda names: bool({*names} & {*form.known} - {"id"}), wanted)
        return ((line, where, {name: field or None for name, field in row.items()}) for line, where, row in table)
    return None


def _listed(file: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """The objects of a list in a .json file."""
    for number, where, row in json_items(file, "input"):
        if not isinstance(row, dict):
            raise ValueError(f"{where}: a row must be an object with keys, not {kind_of(row)}")
        yield number, where, row


def _items(rows: Iterable[tuple[int, str, dict[str, Any]]], file: str, form: Form) -> Iterator[Item]:
    said: set[str] = set()
    for line, where, row in rows:
        id = str(line - 1 if row.get("id") is None else row["id"])
        try:
            parts = form.read(row)
        except ValueError as error:
            yield Item(id, "", row, error=f"{where}: {error}")
            continue
        for name, known in meant(row, form.known).items():
            if name not in said:
                log.warning("input=%s: nothing reads the field %s; did you mean %s?", file, name, known)
            said.add(name)
        for part in parts:
            name = f"{id}.{part.part}" if part.part else id
            yield Item(name, part.text, {**row, **part.settings}, part.before)
