"""What an inference run is asked: one prompt, a file of them, or a pipe."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, TextIO

TEXT_FIELDS = ("prompt", "question", "text")


class Item(NamedTuple):
    """One thing to work on."""

    id: str
    text: str
    fields: dict[str, Any]  # whatever else its line holds


def read_items(prompt_text: object, file: str | None, pipe: TextIO) -> list[Item]:
    """The items of a run, from the first of these that is there: `prompt_text`, `input`, a pipe.

    A .jsonl file has an object a line with one of the fields prompt, question, text, and perhaps an id; any other file and a pipe
    have a text a line. Ids are line numbers from 0 where none are given; blank lines are skipped.
    Raises ValueError where there is nothing, a line can't be read, or two items share an id.
    """
    if prompt_text is not None and file is not None:
        raise ValueError("prompt_text and input are both set; keep one")
    if prompt_text is not None:
        return [Item("0", str(prompt_text), {})]
    if file is not None:
        path = Path(file)
        if not path.is_file():
            raise ValueError(f"input={file}: there is no such file")
        lines: Iterable[str] = path.read_text(encoding="utf-8").splitlines()
        items = list(_objects(lines, file) if path.suffix in (".jsonl", ".json") else _lines(lines))
    elif not pipe.isatty():
        items = list(_lines(pipe))
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


def _lines(lines: Iterable[str]) -> Iterable[Item]:
    for number, line in enumerate(lines):
        if line.strip():
            yield Item(str(number), line.rstrip("\r\n"), {})


def _objects(lines: Iterable[str], file: str) -> Iterable[Item]:
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        where = f"input={file}, line {number + 1}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: is no JSON ({error.msg})") from None
        if not isinstance(row, dict):
            raise ValueError(f"{where}: is no object with one of the fields {', '.join(TEXT_FIELDS)}")
        text = next((row[name] for name in TEXT_FIELDS if isinstance(row.get(name), str)), None)
        fields = {name: value for name, value in row.items() if name != "id" and row[name] is not text}
        yield Item(str(row.get("id", number)), text or "", fields)
