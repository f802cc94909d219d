"""The first pass: each part of the corpus is read, every step looks at its documents, and what was found is written.

What steps say of a document alone is decided here; what depends on other documents (duplicates) gets its keys, and is
decided when all parts are there (`resolving`). A part's findings appear under their name when they are complete, so
that a run that was killed goes on with the next part.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from alignlab.corpus.documents import Batch, Document, Verdict
from alignlab.corpus.settings import Chain, made
from alignlab.corpus.sources import Part, Reader, Source
from alignlab.files.writing import replaced

KEPT = 127  # no step drops the document
_CHARS, _MOST = 1 << 18, 4096  # of a batch: characters, documents


class Plan(NamedTuple):
    """What is done: the same for all parts."""

    kind: str
    chain: Chain
    sources: list[Source]

    def names(self) -> list[str]:
        """Of the steps, in order."""
        return [name for name, _ in self.chain]


class Mark(NamedTuple):
    """What a step says of one document."""

    document: int  # within the part
    step: int
    reason: str
    evidence: Mapping[str, Any]
    line: bytes | None  # as the step has edited it
    tells: bool


def look(plan: Plan, part: Part, number: int, folder: Path) -> None:
    """Looks through one part and writes `<number>.npz`, `<number>.marks` and what duplicates are told by."""
    source = plan.sources[part.source]
    steps = _steps(json.dumps(plan.chain))
    reader, digest = Reader(source, plan.kind), blake2b(digest_size=16)
    columns: dict[str, list[np.ndarray]] = {}
    sets, seen = _Sets(), 0
    with replaced(folder / f"{number:06d}.marks") as temporary:
        with temporary.open("wb") as marks:
            for documents in batched(reader.documents(part), digest):
                for name, column in _look(steps, documents, seen, reader, marks, sets).items():
                    columns.setdefault(name, []).append(column)
                seen += len(documents)
    joined = {name: np.concatenate(held) for name, held in columns.items()}
    sets.write(folder, number)
    with replaced(folder / f"{number:06d}.npz") as temporary, temporary.open("wb") as file:
        digest_bytes = np.frombuffer(digest.digest(), np.uint8)
        np.savez(file, digest=digest_bytes, documents=np.int64(seen), lines=np.int64(reader.lines), **joined)


@lru_cache(maxsize=1)
def _steps(chain: str) -> list[Any]:
    return [made(name, settings) for name, settings in json.loads(chain)]


def batched(documents: Iterator[Document], digest: Any = None) -> Iterator[list[Document]]:
    """Documents, as many at a time as are looked at together; a digest is told of each line."""
    held: list[Document] = []
    size = 0
    for document in documents:
        if digest is not None:
            digest.update(document.raw)
        held.append(document)
        size += len(document.raw)
        if size >= _CHARS or len(held) >= _MOST:
            yield held
            held, size = [], 0
    if held:
        yield held


def _look(
    steps: Sequence[Any], documents: list[Document], first: int, reader: Reader, marks: BinaryIO, sets: "_Sets"
) -> dict[str, np.ndarray]:
    batch = Batch(documents, reader.source.file.parent)
    count = len(documents)
    columns = {
        "step": np.full(count, KEPT, np.int8),
        "line": np.array([document.line for document in documents], np.uint32),
        "bytes": np.array([len(document.raw) for document in documents], np.uint32),
        "words": np.diff(batch.letters.bounds).astype(np.uint32),
        "pictures": np.array([bool(document.group) for document in documents]),
    }
    found: list[Mark] = []
    for order, step in enumerate(steps):
        if hasattr(step, "sets"):
            sets.add(first, step.sets(batch))
        for number, verdict in _verdicts(step, batch, columns):
            line = None
            if verdict.edits is not None:
                batch.edit(number, verdict.edits)
                line = reader.written(documents[number])
            elif not verdict.tells:
                batch.alive[number] = False
                columns["step"][number] = order
            found.append(Mark(number + first, order, verdict.reason, verdict.evidence, line, verdict.tells))
    for mark in sorted(found, key=lambda mark: (mark.document, mark.step)):
        _write_mark(marks, mark)
    columns["language"] = np.array(batch.languages, "U8")
    return columns


def _verdicts(step: Any, batch: Batch, columns: dict[str, np.ndarray]) -> Iterator[tuple[int, Verdict]]:
    """What a step says of documents alone; then its columns, of which those that it has dropped have no part."""
    if callable(step):
        yield from step(batch)
    if hasattr(step, "columns"):
        columns |= step.columns(batch)


class _Sets:
    """Sets of a part, one batch after another."""

    def __init__(self) -> None:
        self._parts: list[tuple[np.ndarray, ...]] = []
        self._values = 0

    def add(self, first: int, of: Any) -> None:
        bounds = of.bounds + self._values
        self._parts.append(((of.texts + first).astype(np.uint32), of.short, bounds[1:], of.values, of.bands))
        self._values = int(bounds[-1])

    def write(self, folder: Path, number: int) -> None:
        if not self._parts:
            return
        texts, short, bounds, values, bands = zip(*self._parts, strict=True)
        # Documents in order, so that an earlier entry is one of an earlier document.
        arrays = {
            "entries": np.concatenate(texts),
            "short": np.concatenate(short),
            "bounds": np.concatenate([[0], *bounds]).astype(np.int64),
            "values": np.concatenate(values),
            "bands": np.concatenate(bands, axis=1),
        }
        for name, array in arrays.items():
            with replaced(folder / f"{number:06d}.{name}.npy") as temporary, temporary.open("wb") as file:
                np.save(file, array)


def _write_mark(marks: BinaryIO, mark: Mark) -> None:
    """A line of JSON, behind it the edited line as it stands, whose length is told."""
    size = None if mark.line is None else len(mark.line)
    marks.write(json.dumps(mark._replace(line=size), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
    if mark.line is not None:
        marks.write(mark.line)


def read_marks(folder: Path, number: int) -> Iterator[Mark]:
    """What the steps said of a part's documents, in order."""
    with (folder / f"{number:06d}.marks").open("rb") as marks:
        while told := marks.readline():
            mark = Mark(*json.loads(told.decode("utf-8", "surrogatepass")))
            yield mark if mark.line is None else mark._replace(line=marks.read(mark.line))
