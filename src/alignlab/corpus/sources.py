"""Files of documents, cut into parts that are looked at one by one: .txt, .jsonl, .csv, .tsv, also .gz, tar shards of
pictures with captions, and folders.

A part is a stretch of whole lines of a file, or a whole compressed one, or a shard, whose samples are lines of JSON.
A line ends at \\n or \\r\\n.
"""

import gzip
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from alignlab.corpus.documents import CAPTION_KEYS, KINDS, TEXT_KEYS, Document, kind_of_columns, read
from alignlab.data.shards.rewriting import BROKEN, picture
from alignlab.data.shards.rewriting import lines as shard_lines
from alignlab.data.tables import SUFFIXES, table_fields, table_header
from alignlab.files.text import kind_of, lines_of, parse_json, shown

FORMS = {
    ".txt": "txt",
    ".text": "txt",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    **dict.fromkeys(SUFFIXES, "table"),
    ".tar": "shard",
}
PART = 16 << 20  # bytes
_MARK = b"\xef\xbb\xbf"
_WIDE = (b"\xff\xfe", b"\xfe\xff")
_OURS = ("report.json", "report.html", "dropped.jsonl")


class Source(NamedTuple):
    """One file."""

    file: Path
    name: str  # where its cleaned form lies below the folder of results
    form: str  # txt, jsonl, table, shard; file: a .txt that is one document
    whole: bool  # compressed, in UTF-16, or a shard: read from its begin to its end
    reference: bool = False  # only compared with, neither changed nor written


class Part(NamedTuple):
    """A stretch of a file's bytes."""

    source: int
    start: int
    end: int


def sources_of(
    places: Sequence[Path], references: Sequence[Path] = (), whole_files: bool = False, without: Path | None = None
) -> list[Source]:
    """Files of the places, references first.

    Args:
        whole_files: a .txt is one document; else a document a line.
        without: a folder that isn't looked into: that of the results.

    Raises:
        ValueError: a place isn't there, a folder has no such file, a file has another suffix, or two results would
            have one name.
    """
    found = [one for place in references for one in _files(place, True, without)]
    found += [one for place in places for one in _files(place, False, without)]
    if whole_files:
        found = [one._replace(form="file", whole=True) if one.form == "txt" else one for one in found]
    names: dict[str, Path] = {}
    for one in found:
        if not one.reference:
            if one.name in names and names[one.name] != one.file:
                raise ValueError(f"{one.file} and {names[one.name]} would both become {one.name}; rename one")
            if names.get(one.name) == one.file:
                raise ValueError(f"{one.file} is given twice")
            names[one.name] = one.file
    return found


def _files(place: Path, reference: bool, without: Path | None) -> Iterator[Source]:
    place = place.expanduser()
    if place.is_dir():
        hidden = None if without is None else without.resolve()
        inside = sorted(file for file in place.rglob("*") if file.is_file() and _form(file) and file.name not in _OURS)
        inside = [file for file in inside if not any(part.startswith(".") for part in file.relative_to(place).parts)]
        inside = [file for file in inside if hidden is None or not file.resolve().is_relative_to(hidden)]
        if not inside:
            raise ValueError(f"{place} holds no {', '.join(FORMS)} file (also .gz)")
        for file in inside:
            yield _source(file, str(file.relative_to(place)), reference)
    elif not place.exists():
        raise ValueError(f"{place}: there is no such file")
    elif _form(place) is None:
        raise ValueError(
            f"{place} ends with {place.suffix or 'no suffix'}; what is read is {', '.join(FORMS)} (also .gz)"
        )
    else:
        yield _source(place, place.name, reference)


def _form(file: Path) -> str | None:
    return FORMS.get((file.with_suffix("") if file.suffix == ".gz" else file).suffix.lower())


def _source(file: Path, name: str, reference: bool) -> Source:
    with file.open("rb") as start:
        wide = start.read(2) in _WIDE
    form = _form(file)
    return Source(file, name, form, wide or file.suffix == ".gz" or form == "shard", reference)


def parts_of(number: int, source: Source, size: int = PART) -> list[Part]:
    """The parts of a file, each at most `size` bytes and the line that lies across."""
    total = source.file.stat().st_size
    if source.whole or total <= size:
        return [Part(number, 0, total)]
    cuts = [0]
    with source.file.open("rb") as file:
        while cuts[-1] + size < total:
            file.seek(cuts[-1] + size)
            file.readline()
            cuts.append(file.tell())
    if cuts[-1] < total:
        cuts.append(total)
    return [Part(number, start, end) for start, end in itertools.pairwise(cuts)]


def raw_lines(source: Source, part: Part) -> Iterator[bytes]:
    """Lines of a part with their ends; those of UTF-16 become UTF-8. Of a file that is one document, all at once."""
    if source.form == "file":
        yield b"".join(raw_lines(source._replace(form="txt"), part))
        return
    if source.form == "shard":
        yield from shard_lines(source.file)
        return
    with source.file.open("rb") as file:
        wide = file.read(2) in _WIDE and source.file.suffix != ".gz"
        if wide:
            file.seek(0)
            with io.TextIOWrapper(file, "utf-16", errors="surrogateescape", newline="\n") as text:
                for line in text:
                    yield line.encode("utf-8", "surrogateescape")
        elif source.file.suffix == ".gz":
            file.seek(0)
            try:
                yield from gzip.open(file)
            except (EOFError, gzip.BadGzipFile) as error:
                raise ValueError(f"{source.file}: the compressed file is damaged ({error})") from error
        else:
            file.seek(part.start)
            left = part.end - part.start
            while left > 0 and (line := file.readline()):
                left -= len(line)
                yield line


WHOLE = Part(0, 0, 1 << 62)


class Reader:
    """Documents of a file's lines.

    Raises:
        ValueError: a table's header isn't understood.
    """

    def __init__(self, source: Source, kind: str) -> None:
        self.source, self.kind = source, kind
        self.header: bytes = b""
        self.lines = 0  # of the part that was read last
        self.names: list[str] = []
        self._separator = ","
        if source.form == "table":
            first = next((line for line in raw_lines(source, WHOLE) if line.strip()), b"")
            self.header = first
            wanted = f"a column {' or '.join((*TEXT_KEYS, *CAPTION_KEYS))}, or prompt, chosen, rejected"
            suffix = (source.file.with_suffix("") if source.file.suffix == ".gz" else source.file).suffix.lower()
            try:
                line = first.removeprefix(_MARK).decode().rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise ValueError(f"{source.file}, line 1: no UTF-8 (byte {error.start})") from error
            self.names, self._separator = table_header(
                line, suffix, f"{source.file}, line 1", lambda names: kind_of_columns(names) is not None, wanted
            )

    def documents(self, part: Part) -> Iterator[Document]:
        """Documents of a part; empty lines and a table's header are none."""
        for number, raw in self.rows(part):
            yield self.document(number, raw)

    def rows(self, part: Part) -> Iterator[tuple[int, bytes]]:
        """Numbers from 0 and bytes of the lines that are documents."""
        skip = part.start == 0 and bool(self.header)
        self.lines = 0
        for number, raw in enumerate(raw_lines(self.source, part)):
            self.lines = number + 1
            if not raw.strip():
                continue
            if skip:
                skip = False
                continue
            yield number, raw

    def document(self, number: int, raw: bytes) -> Document:
        """One line as a document; what is wrong with it is said there."""
        try:
            line = raw.removeprefix(_MARK).decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            return Document(number, raw, None, f"no UTF-8: byte {error.start} is 0x{raw[error.start]:02x}")
        if "\0" in line:
            return Document(number, raw, None, "a zero byte")
        try:
            row = self._row(line)
        except ValueError as error:
            reason = "no JSON" if self.source.form == "jsonl" else "no row"
            return Document(number, raw, None, f"{reason}: {str(error).removeprefix('line: ')}: {shown(line)}")
        if BROKEN in row and self.source.form == "shard":
            return Document(number, raw, None, f"broken sample: {row[BROKEN]}")
        document = Document(number, raw, row)
        read(document, self.kind)
        if self.source.form == "shard":
            document.picture = picture(self.source.file, row)
            document.group = str(document.picture or "")
        return document

    def _row(self, line: str) -> dict:
        if self.source.form in ("txt", "file"):
            return {"text": line}
        if self.source.form == "table":
            return dict(zip(self.names, table_fields(line, self._separator, "line", len(self.names)), strict=True))
        row = parse_json(line, "line")
        if not isinstance(row, dict):
            raise ValueError(f"a row must be an object with keys, not {kind_of(row)}")
        return row

    def written(self, document: Document) -> bytes:
        """An edited document as a line of its file."""
        ended = document.raw[len(document.raw.rstrip(b"\r\n")) :]
        if self.source.form == "file":
            line = document.leaves[0][1]
        elif self.source.form == "txt":
            line = " ".join(lines_of(document.leaves[0][1]))
        elif self.source.form == "table":
            old = document.raw.removeprefix(_MARK).decode().rstrip("\r\n")
            fields = table_fields(old, self._separator, "line", len(self.names))
            for path, text in document.leaves:
                fields[self.names.index(path[0])] = text
            line = self._table_row(fields)
        else:
            line = json.dumps(document.row, ensure_ascii=False)
        return line.encode("utf-8") + ended

    def _table_row(self, fields: list[str]) -> str:
        quoted = [
            f'"{f.replace(chr(34), chr(34) * 2)}"' if set(f) & {self._separator, '"', "\n"} else f for f in fields
        ]
        return self._separator.join(quoted)


def detected(source: Source) -> str:
    """Which kind of data a file holds, by the first row that is one.

    Raises:
        ValueError: its columns are of no kind.
    """
    if source.form in ("txt", "file"):
        return "text"
    reader = Reader(source, "text")
    if source.form == "table":
        return kind_of_columns(reader.names)
    columns: list[str] = []
    for number, document in enumerate(reader.documents(WHOLE)):
        if document.row is not None:
            columns = list(document.row)
            if (kind := kind_of_columns(columns)) is not None:
                return kind
        if number >= 100:
            break
    raise ValueError(
        f"{source.file}: no column text, caption, messages, completion, or chosen and rejected, only "
        f"{', '.join(columns) or 'nothing'} (kinds: {', '.join(KINDS)})"
    )
