"""What an inference run is asked: one prompt, a file of them, or a pipe."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from alignlab.files.text import json_lines, kind_of, read_lines

TEXT_FIELDS = ("prompt", "question", "text")


class Item(NamedTuple):
    """One thing to work on."""

    id: str
    text: str
    fields: dict[str, Any]  # whatever else its line holds


def read_items(prompt_text: object, file: str | None, pipe: TextIO) -> list[Item]:
    """The items of a run, from the first of these that is there: `prompt_text`, `input`, a pipe.

    A .jsonl file has an object a line with one of the fields prompt, question, text, and perhaps an id; any other file
    and a pipe have a text a line. Ids are line numbers from 0 where none are given; blank lines are skipped.
    Raises ValueError where there is nothing, a line can't be read, or two items share an id.
    """
    if prompt_text is not None and file is not None:
        raise ValueError("prompt_text and input are both set; keep one")
    if prompt_text is not None:
        return [Item("0", str(prompt_text), {})]
    if file is not None:
        objects = Path(file).suffix.lower() in (".jsonl", ".json")
        items = list(_objects(file) if objects else _lines(read_lines(file, "input")))
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
    try:
        for line in pipe:
            yield line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"the pipe holds what is no {error.encoding.upper()} text ({error.reason})") from None


def _objects(file: str) -> Iterator[Item]:
    for line, where, row in json_lines(file, "input"):
        key = next((name for name in TEXT_FIELDS if row.get(name) is not None), None)
        if key is None:
            raise ValueError(f"{where}: has none of the fields {', '.join(TEXT_FIELDS)}, only {', '.join(row)}")
        if not isinstance(row[key], str):
            raise ValueError(f"{where}: {key} is {kind_of(row[key])}; it must be text")
        fields = {name: value for name, value in row.items() if name not in ("id", key)}
        yield Item(str(row.get("id", line - 1)), row[key], fields)
