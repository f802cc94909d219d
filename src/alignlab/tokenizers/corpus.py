"""Texts to compare on, read line by line: parallel files, tables, captions, chats, preferences."""

import gzip
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, BinaryIO

PREFERENCE = ("chosen", "rejected")
_PAIR = re.compile(r"(?:^|[._])([a-z]{2,3})-([a-z]{2,3})(?=[._]|$)")  # news-commentary-v16.en-zh.tsv.gz
_TABLES = (".tsv",)
_TEXTS = (".txt", ".text")
Record = dict[str, Any]


class Corpus:
    """Records of one text each, or of several that belong together.

    Two files are parallel, line by line. A `.tsv` has a text a column and no heading (News Commentary). A `.jsonl` has
    an object a line: its `caption` or `text`, or else all its texts (`{"en": ..., "zh": ...}`), `messages` of a chat,
    or `prompt`, `chosen` and `rejected`. Anything else is a text a line. Any of them may be `.gz`.

    Args:
        files: one file, or parallel ones.
        names: of the parts; default: suffixes of parallel files, what the table's file name says, keys of the objects.
        limit: records at most.

    Attributes:
        kind: `texts`, `aligned`, `chats` or `preferences`.
        skipped: records that were left out because a part was empty, so far.
    """

    def __init__(self, files: Sequence[Path], names: Sequence[str] = (), limit: int | None = None) -> None:
        if not files:
            raise ValueError("no corpus: name a file, or parallel ones")
        for file in files:
            if not file.is_file():
                raise ValueError(f"corpus: {file} is no file")
        if limit is not None and limit < 1:
            raise ValueError(f"limit is {limit}; it must be at least 1")
        self.files, self.limit, self.skipped = list(files), limit, 0
        self.suffix = _suffix(files[0])
        self._given = tuple(names)
        first = next(self._records(), None)
        if first is None:
            raise ValueError(f"corpus: {files[0]} has no text")
        self.parts = tuple(first)
        if "messages" in first:
            self.kind = "chats"
        elif set(PREFERENCE) <= set(first):
            self.kind = "preferences"
        else:
            self.kind = "texts" if len(first) == 1 else "aligned"

    def __iter__(self) -> Iterator[Record]:
        """Records in order; each is a dict from part to text (`messages`: to the chat)."""
        self.skipped = 0
        for record in islice(self._records(), self.limit):
            if tuple(record) != self.parts:
                raise ValueError(
                    f"corpus: {self.files[0]} has a record with {', '.join(record)}; the first has "
                    f"{', '.join(self.parts)}"
                )
            yield record

    def batches(self, size: int = 1000) -> Iterator[list[Record]]:
        """Records, some at a time."""
        records = iter(self)
        while batch := list(islice(records, size)):
            yield batch

    def _records(self) -> Iterator[Record]:
        if len(self.files) > 1:
            names = self._names(len(self.files), [_suffix(f).removeprefix(".") for f in self.files])
            rows = (dict(zip(names, texts, strict=True)) for texts in self._parallel())
        elif self.suffix in (".jsonl", ".ndjson"):
            rows = (self._object(number, line) for number, line in self._lines(self.files[0]))
        elif self.suffix in _TABLES:
            rows = self._table()
        else:
            name = self._names(1, ["text"])
            rows = ({name[0]: line} for _, line in self._lines(self.files[0]))
        for row in rows:
            if all(value.strip() if isinstance(value, str) else value for value in row.values()):
                yield row
            else:
                self.skipped += 1

    def _names(self, count: int, default: Sequence[str]) -> Sequence[str]:
        names = self._given or (default if len(set(default)) == count else [f"text {n + 1}" for n in range(count)])
        if len(names) != count:
            raise ValueError(f"names: {len(names)} names for {count} texts ({', '.join(names)})")
        return names

    def _table(self) -> Iterator[Record]:
        match = _PAIR.search(self.files[0].name)
        names: Sequence[str] = ()
        for number, line in self._lines(self.files[0]):
            cells = line.split("\t")
            names = names or self._names(len(cells), match.groups() if match else ())
            if len(cells) != len(names):
                raise ValueError(
                    f"{self.files[0]}, line {number}: {len(cells)} columns; the first line has {len(names)}"
                )
            yield dict(zip(names, cells, strict=True))

    def _object(self, number: int, line: str) -> Record:
        place = f"{self.files[0]}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{place}: no JSON ({error.msg})") from error
        if not isinstance(row, dict):
            raise ValueError(f"{place}: no object")
        if isinstance(row.get("messages"), list):
            return {"messages": row["messages"]}
        texts = {key: value for key, value in row.items() if isinstance(value, str)}
        if set(PREFERENCE) <= set(texts):
            texts = {"prompt": texts.get("prompt", ""), **{key: texts[key] for key in PREFERENCE}}
            return texts if texts["prompt"] else {key: texts[key] for key in PREFERENCE}
        alone = next(
            (key for key in ("caption", "text") if key in texts), None
        )  # beside a picture's path, a source, ...
        chosen = self._given or ((alone,) if alone else ())
        texts = {key: texts.get(key, "") for key in chosen} if chosen else texts
        if not texts:
            raise ValueError(f"{place}: no text in {', '.join(row) or 'an empty object'}")
        return texts

    def _parallel(self) -> Iterator[tuple[str, ...]]:
        count = 0
        for lines in zip_longest(*map(self._lines, self.files)):
            if None in lines:
                counts = [sum(1 for _ in self._lines(file)) for file in self.files]
                said = ", ".join(f"{file} has {n} lines" for file, n in zip(self.files, counts, strict=True))
                raise ValueError(f"corpus: parallel files differ: {said}")
            count += 1
            yield tuple(line for _, line in lines)

    def _lines(self, file: Path) -> Iterator[tuple[int, str]]:
        with ExitStack() as stack:
            raw: BinaryIO = stack.enter_context(gzip.open(file) if file.suffix == ".gz" else file.open("rb"))
            for number, line in enumerate(raw, 1):
                try:
                    yield number, line.decode().rstrip("\r\n")
                except UnicodeDecodeError as error:
                    raise ValueError(f"{file}, line {number}: no UTF-8 (byte {error.start})") from error


def _suffix(file: Path) -> str:
    return (file.with_suffix("") if file.suffix == ".gz" else file).suffix
