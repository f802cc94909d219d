"""Samples of a shard as lines of JSON, and such lines as a shard again: what a corpus is cleaned by.

A line is a sample's row with its `__key__` and its `__members__`: name, offset and size of each in the shard.
"""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from alignlab.data.pictures.members import PICTURE_SUFFIXES, Member
from alignlab.data.shards.reading import TEXTS, samples

KEY, MEMBERS, BROKEN = "__key__", "__members__", "__broken__"


def lines(shard: Path) -> Iterator[bytes]:
    """The samples of a shard, in its order; one that can't be read, or a shard's rest, has a line that says why."""
    wrong: list[ValueError] = []
    for sample in samples(shard, "shard", wrong.append):
        yield from _said(wrong)
        members = [[one.name, one.offset, one.size] for one in sample.members]
        yield json.dumps({KEY: sample.key, **sample.row, MEMBERS: members}, ensure_ascii=False).encode() + b"\n"
    yield from _said(wrong)


def _said(wrong: list[ValueError]) -> Iterator[bytes]:
    for error in wrong:
        yield json.dumps({BROKEN: str(error).removeprefix("shard=")}, ensure_ascii=False).encode() + b"\n"
    wrong.clear()


def picture(shard: Path, row: dict[str, Any]) -> Member | None:
    """The first picture of a line's sample."""
    for name, offset, size in row[MEMBERS]:
        if PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES:
            return Member(shard, offset, size, name)
    return None


class Rewritten:
    """A shard to which lines of another are written: their members as they were, texts that have changed anew.

    Args:
        file: open for writing.
        shard: where the lines come from.
    """

    def __init__(self, file: BinaryIO, shard: Path) -> None:
        self._shard = shard
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)

    def write(self, line: bytes) -> int:
        """Writes one sample; an empty line is none. Gives the bytes written."""
        if not line.strip():
            return 0
        row, start = json.loads(line), self._tar.offset
        parts = [(name, Member(self._shard, at, size, name).read_bytes()) for name, at, size in row.pop(MEMBERS)]
        changed: dict[str, str] = {}
        parts = [
            (name, _row_of(content, row, changed) if name.lower().endswith(".json") else content)
            for name, content in parts
        ]
        for name, content in parts:
            self._add(name, _text_of(content, row, changed) if name.lower().endswith(TEXTS) else content)
        return self._tar.offset - start

    def _add(self, name: str, content: bytes) -> None:
        info = tarfile.TarInfo(name)  # time and owner are 0: equal samples, equal bytes
        info.size = len(content)
        self._tar.addfile(info, io.BytesIO(content))

    def close(self) -> None:
        """Writes the mark of the end."""
        self._tar.close()


def _row_of(content: bytes, row: dict[str, Any], changed: dict[str, str]) -> bytes:
    """A member of JSON with the fields of its row; texts that have changed are noted."""
    old = json.loads(content.decode("utf-8-sig"))
    new = {key: row.get(key, value) for key, value in old.items()}
    _compare(old, new, changed)
    return content if new == old else json.dumps(new, ensure_ascii=False).encode()


def _text_of(content: bytes, row: dict[str, Any], changed: dict[str, str]) -> bytes:
    """A member of plain text, changed as the same text in the row was."""
    text = content.decode("utf-8-sig").strip()
    new = changed.get(text, text) if changed or not isinstance(row.get("caption"), str) else row["caption"]
    return content if new == text else new.encode()


def _compare(old: Any, new: Any, changed: dict[str, str]) -> None:
    """Notes texts that have changed."""
    if isinstance(old, str) and old != new:
        changed[old.strip()] = new
    elif isinstance(old, list):
        for one, other in zip(old, new, strict=True):
            _compare(one, other, changed)
    elif isinstance(old, dict):
        for key, value in old.items():
            _compare(value, new[key], changed)
