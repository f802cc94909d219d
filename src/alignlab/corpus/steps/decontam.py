"""Documents that hold a piece of an evaluation: runs of words (characters, without spaces) that both have.

W words of a batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from alignlab.corpus.documents import Batch, Verdict
from alignlab.corpus.letters import Letters
from alignlab.data.tables import SUFFIXES, read_table
from alignlab.files.text import json_items, json_lines, read_lines

_BITS = 22
_SHOWN = 160  # letters of a run in the evidence


class Decontam:
    """Drops documents with a run of `words` words that an evaluation's item has too; of an item with fewer words all of
    it is the run, down to `least`.

    Args:
        files: of the evaluation: .txt (an item a line), .jsonl, .json, .csv, .tsv; all texts of a row are looked for.
        words: of a run; 13 as for GPT-3 (arXiv:2005.14165, appendix C).
        least: an item with fewer words than that is too short to look for.
        action: "drop" or "report".

    Raises:
        ValueError: no files, a number below 1, or a file that can't be read.
    """

    name = "decontam"

    def __init__(self, files: Sequence[str] | str = (), words: int = 13, least: int = 6, action: str = "drop") -> None:
        files = (files,) if isinstance(files, str) else tuple(map(str, files))
        if not files:
            raise ValueError("files names no evaluation: --evaluation FILE, or decontam.files=[FILE]")
        if not 1 <= least <= words:
            raise ValueError(f"least is {least}; it must lie between 1 and words={words}")
        if action not in ("drop", "report"):
            raise ValueError(f"action is {action!r}; it must be drop or report")
        self._words, self._tells, self._runs = words, action == "report", runs_of(files, words, least)

    def __call__(self, batch: Batch) -> Iterator[tuple[int, Verdict]]:
        letters = batch.letters
        owner = np.repeat(np.arange(len(batch.documents)), np.diff(letters.bounds))
        hits: dict[int, dict[str, int]] = {}
        first: dict[int, tuple[int, int]] = {}
        for size, (likely, hashes, items) in self._runs.runs.items():
            windows = letters.rolling.windows(size)
            some = np.flatnonzero(likely[windows >> np.uint64(64 - _BITS)])
            some = some[(owner[some] == owner[some + size - 1]) & batch.alive[owner[some]]] if len(some) else some
            places = np.searchsorted(hashes, windows[some])
            for at, place in zip(some.tolist(), places.tolist(), strict=True):
                while place < len(hashes) and hashes[place] == windows[at]:
                    found = hits.setdefault(int(owner[at]), {})
                    found[self._runs.items[int(items[place])]] = found.get(self._runs.items[int(items[place])], 0) + 1
                    first.setdefault(int(owner[at]), (at, size))
                    place += 1
        for number, found in sorted(hits.items()):
            at, size = first[number]
            begin, end = int(letters.words[0][at]), int(letters.words[1][at + size - 1])
            shown = letters.codes[begin : min(end, begin + _SHOWN)].tobytes().decode("utf-32-le", "replace")
            evidence = {"items": sorted(found, key=lambda item: -found[item])[:50], "run": shown}
            yield number, Verdict("in an evaluation", evidence, tells=self._tells)

    def counts(self) -> dict[str, int]:
        """Items of the evaluation, and those too short to look for."""
        return {"items": len(self._runs.items), "too short": self._runs.short}


class Runs:
    """What is looked for: runs by their number of words, and whose they are.

    Attributes:
        runs: number of words -> a table of likely hashes, rising hashes, number of the item of each.
        items: "file, line n" of each item.
        short: items that are too short.
    """

    def __init__(self, files: Sequence[str], words: int, least: int) -> None:
        self.items: list[str] = []
        self.short = 0
        found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
        for file in files:
            for place, texts in items_of(Path(file).expanduser()):
                number, letters = len(self.items), Letters(texts or [""])
                self.items.append(place)
                enough = False
                for first, last in zip(letters.bounds[:-1], letters.bounds[1:], strict=True):
                    size = min(words, int(last - first))
                    if size < least:
                        continue
                    enough = True
                    starts = np.arange(first, last - size + 1)
                    hashes = letters.rolling.of(starts, starts + size)
                    found.setdefault(size, []).append((hashes, np.full(len(hashes), number)))
                self.short += not enough
        self.runs: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        for size, held in sorted(found.items()):
            hashes, items = (np.concatenate(column) for column in zip(*held, strict=True))
            hashes, places = np.unique(hashes, return_index=True)
            likely = np.zeros(1 << _BITS, bool)
            likely[hashes >> np.uint64(64 - _BITS)] = True
            self.runs[size] = likely, hashes, items[places]


@lru_cache(maxsize=1)
def runs_of(files: tuple[str, ...], words: int, least: int) -> Runs:
    """Read once a process."""
    return Runs(files, words, least)


def items_of(file: Path) -> Iterator[tuple[str, list[str]]]:
    """Place and texts of each item of an evaluation's file.

    Raises:
        ValueError: the file isn't there, or can't be read as what its name says.
    """
    key, suffix = "decontam.files", file.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        rows: Iterator[tuple[int, Any]] = ((number, row) for number, _, row in json_lines(file, key))
    elif suffix == ".json":
        rows = ((number, row) for number, _, row in json_items(file, key))
    elif suffix in SUFFIXES:
        rows = (
            (number, row) for number, _, row in read_table(file, key, lambda names: len(names) > 0, "names of columns")
        )
    else:
        rows = enumerate(read_lines(file, key), 1)
    for number, row in rows:
        if texts := [text for text in _texts(row) if text.strip()]:
            yield f"{file.name}, line {number}", texts


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
