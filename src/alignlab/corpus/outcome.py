"""The third pass: cleaned files, dropped.jsonl, and what the report counts and shows."""

import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from alignlab.corpus.looking import KEPT, Mark, Plan, read_marks
from alignlab.corpus.resolving import Corpus
from alignlab.corpus.sources import Part, Reader, Source
from alignlab.data.shards.rewriting import Rewritten
from alignlab.files.writing import replaced

DATA = "data"  # folder of the cleaned files: what trains on a folder finds no dropped rows there
SAMPLES = 4  # of a reason, in the report
_SHOWN = 500  # characters of a sample
Row = dict[str, Any]


class Outcome:
    """Writes what was decided and counts it.

    Attributes:
        reasons: (step, reason) -> documents dropped.
        edited: (step, reason) -> documents changed; `told`: kept as they are all the same.
        crossing: (file, file of the one that is kept) -> duplicates dropped.
        hit: item of an evaluation -> documents that hold a piece of it.
        files: name -> documents in and out, bytes, digest of what is kept.
    """

    def __init__(self, plan: Plan, parts: Sequence[Part], corpus: Corpus) -> None:
        self._plan, self._parts, self._corpus = plan, parts, corpus
        self._names = plan.names()
        self._line = corpus.column("line")
        self.reasons, self.edited, self.told, self.crossing = Counter(), Counter(), Counter(), Counter()
        self.hit: Counter = Counter()
        self.files: dict[str, Row] = {}
        self._number = 0  # of the source that is being written
        self._samples: dict[tuple[str, str], list[tuple[bytes, Row]]] = defaultdict(list)

    def write(self, target: Path, cleaned: bool) -> None:
        """Files below `target/data`; only dropped.jsonl unless `cleaned`. Each has its name when it is complete."""
        with replaced(target / "dropped.jsonl") as temporary, temporary.open("w", encoding="utf-8") as lost:
            for number, source in enumerate(self._plan.sources):
                if source.reference:
                    continue
                first = next(place for place, part in enumerate(self._parts) if part.source == number)
                document = int(self._corpus.firsts[first])
                # A file that was one document, and went, leaves none.
                if cleaned and not (
                    source.form == "file" and (self._corpus.step[document : document + 1] != KEPT).all()
                ):
                    with replaced(target / DATA / source.name) as new, _opened(new, source) as out:
                        self._file(number, out, lost)
                    if source.form == "shard":  # pictures too
                        self.files[source.name]["bytes"] = (target / DATA / source.name).stat().st_size
                else:
                    self._file(number, None, lost)

    def _file(self, number: int, out: BinaryIO | Rewritten | None, lost: TextIO) -> None:
        self._number = number
        source, digest, size, kept, seen = self._plan.sources[number], blake2b(digest_size=16), 0, 0, 0
        reader = Reader(source, self._plan.kind)
        if out is not None:
            out.write(reader.header)
            size += len(reader.header)
        for place, part in enumerate(self._parts):
            if part.source != number:
                continue
            first, marks = int(self._corpus.firsts[place]), _Marks(read_marks(self._corpus.folder, place))
            for within, (_, raw) in enumerate(reader.rows(part)):
                step, said, seen = int(self._corpus.step[first + within]), marks.of(within), seen + 1
                if step != KEPT:
                    row = self._dropped(step, said, first + within, raw)
                    lost.write(json.dumps(row, ensure_ascii=False) + "\n")
                    continue
                raw = self._kept(said, raw, first + within)
                kept, size = kept + 1, size + len(raw)
                digest.update(raw)
                if out is not None:
                    out.write(raw)
        self.files[source.name] = {"in": seen, "kept": kept, "bytes": size, "blake2b": digest.hexdigest()}

    def _kept(self, said: Sequence[Mark], raw: bytes, document: int) -> bytes:
        for mark in said:
            name = self._names[mark.step]
            (self.told if mark.tells else self.edited)[name, mark.reason] += 1
            self.hit.update(mark.evidence.get("items", ()))
            raw = raw if mark.line is None else mark.line
            self._sample(name, mark.reason, {"place": self.place(document), **mark.evidence}, raw)
        return raw

    def _dropped(self, step: int, said: Sequence[Mark], number: int, raw: bytes) -> Row:
        name = self._names[step]
        own = next((mark for mark in said if mark.step == step and mark.line is None and not mark.tells), None)
        if number in self._corpus.others:
            own = None
        if own is not None:
            reason, evidence = own.reason, dict(own.evidence)
        else:
            reason, evidence = self._corpus.others[number]
            other, evidence = evidence["of"], {**evidence, "of": self.place(evidence["of"])}
            self.crossing[self.source_of(number), self.source_of(other)] += 1
        self.reasons[name, reason] += 1
        self.hit.update(evidence.get("items", ()))
        shown = {"place": self.place(number), **evidence}
        if own is None:
            shown["_other"] = other
        self._sample(name, reason, shown, raw)
        file, _, line = self.place(number).rpartition(", line ")
        try:
            kept = {"row": raw.decode().rstrip("\r\n")}
        except UnicodeDecodeError:
            kept = {"row_latin1": raw.decode("latin-1").rstrip("\r\n")}  # every byte is a letter there
        return {"file": file, "line": int(line), "step": name, "reason": reason, "evidence": evidence, **kept}

    def source_of(self, document: int) -> str:
        """The name of the file that a document stands in."""
        source = self._plan.sources[self._parts[self._corpus.part_of(document)[0]].source]
        return source.file.name if source.reference else source.name

    def place(self, document: int) -> str:
        """File and line of a document."""
        part, _ = self._corpus.part_of(document)
        first = next(place for place, one in enumerate(self._parts) if one.source == self._parts[part].source)
        line = int(self._line[document]) + int(self._corpus.lines[part] - self._corpus.lines[first]) + 1
        return f"{self.source_of(document)}, line {line}"

    def _sample(self, step: str, reason: str, shown: Row, raw: bytes) -> None:
        held = self._samples[step, reason]
        key = blake2b(raw, digest_size=8).digest()
        if len(held) < SAMPLES or key < held[-1][0]:
            held.append((key, {**shown, "_raw": raw, "_source": self._number}))
            held.sort(key=lambda pair: pair[0])
            del held[SAMPLES:]

    def samples(self) -> dict[tuple[str, str], list[Row]]:
        """A few documents of each step and reason, chosen by a hash, for duplicates with the one that is kept."""
        found = {}
        for key, held in sorted(self._samples.items()):
            found[key] = []
            for _, row in held:
                shown = {name: value for name, value in row.items() if not name.startswith("_")}
                shown["text"] = _short(self._reader(row["_source"]), row["_raw"])
                if "_other" in row:
                    shown["kept"] = self._text(row["_other"])
                found[key].append(shown)
        return found

    def _reader(self, source: int) -> Reader:
        return Reader(self._plan.sources[source], self._plan.kind)

    def _text(self, document: int) -> str:
        place, within = self._corpus.part_of(document)
        part = self._parts[place]
        reader = self._reader(part.source)
        for number, (_, raw) in enumerate(reader.rows(part)):
            if number == within:
                return _short(reader, raw)
        raise AssertionError("a document's part doesn't hold it")


class _Marks:
    """Marks of documents that are asked for in order."""

    def __init__(self, marks: Iterator[Mark]) -> None:
        self._marks, self._next = marks, next(marks, None)

    def of(self, document: int) -> list[Mark]:
        found = []
        while self._next is not None and self._next.document == document:
            found.append(self._next)
            self._next = next(self._marks, None)
        return found


@contextmanager
def _opened(file: Path, source: Source) -> Iterator[BinaryIO | Rewritten]:
    with file.open("wb") as plain:
        if source.form == "shard":
            with closing(Rewritten(plain, source.file)) as shard:
                yield shard
        elif source.name.endswith(".gz"):
            with gzip.GzipFile(filename="", fileobj=plain, mode="wb", mtime=0) as packed:  # equal rows, equal bytes
                yield packed
        else:
            yield plain


def _short(reader: Reader, raw: bytes) -> str:
    document = reader.document(0, raw)
    text = document.text if document.leaves else raw.decode(errors="replace").rstrip("\r\n")
    text = text.encode(errors="replace").decode()  # half letters
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
