"""predictions.jsonl of a run directory: a row as soon as an item is done, so that an interruption loses nothing."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from alignlab.files.aside import set_aside
from alignlab.files.writing import write_text

Prediction = dict[str, Any]
Named = TypeVar("Named")  # has an id


class Predictions:
    """Rows by id, appended to the file one by one and put into the order of the input at the end.

    Opened on a run that was interrupted, it keeps the finished rows; those of failed items and a half-written last
    line are dropped, for they will be done again. So are lines that are no rows, of a damaged file, which is kept
    beside under another name.

    Attributes:
        notes: what was wrong with the file.
    """

    def __init__(self, run_dir: Path, resumed: bool = False) -> None:
        self.file = run_dir / "predictions.jsonl"
        if self.file.exists() and not resumed:
            raise ValueError(f"output: {run_dir} holds predictions already; go on with resume={run_dir}")
        self.notes: list[str] = []
        self._damaged: list[int] = []  # numbers of lines that are no rows
        self.rows = {row["id"]: row for row in self._read() if row.get("error") is None}
        if self._damaged:
            numbers, one = ", ".join(map(str, self._damaged[:20])), len(self._damaged) == 1
            self.notes.append(
                f"resume: line{'' if one else 's'} {numbers} {'is' if one else 'are'} no row of {self.file.name}; "
                f"these items are done again, the file as it was is {set_aside(self.file).name}"
            )
        if self.file.exists() or self._damaged:
            self._write(self.rows.values())

    def missing(self, items: Sequence[Named]) -> list[Named]:
        """The items without a finished row.

        Raises ValueError where a finished row is about another text than the item of the same id.
        """
        for item in items:
            row = self.rows.get(item.id)
            if row is not None and "input" in row and (row["input"], row.get("before")) != (item.text, told(item)):
                raise ValueError(f"resume: item {item.id} is another text now than in {self.file}; start a new run")
        return [item for item in items if item.id not in self.rows]

    def add(self, row: Prediction) -> None:
        """Appends a row and hands it to the operating system at once."""
        self.rows[row["id"]] = row
        with self.file.open("a", encoding="utf-8") as file:
            file.write(_line(row))

    def settle(self) -> int:
        """Number of finished rows, all of which are in the file afterwards: a signal may have broken into `add`."""
        if self.rows and [row["id"] for row in self._read()] != list(self.rows):
            self._write(self.rows.values())
        return len(self.rows)

    def sort(self, order: Iterable[str]) -> list[Prediction]:
        """Rewrites the file in this order and gives the rows; rows of other items follow."""
        known = [self.rows[id] for id in order if id in self.rows]
        ids = {row["id"] for row in known}
        rows = known + [row for id, row in self.rows.items() if id not in ids]
        self.rows = {row["id"]: row for row in rows}
        self._write(rows)
        return rows

    def _read(self) -> Iterable[Prediction]:
        if not self.file.exists():
            return
        # Not str.splitlines: replies may hold U+2028. The last line may end within a letter.
        lines = self.file.read_bytes().decode(errors="replace").removesuffix("\n").split("\n")
        self._damaged = []
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict) and isinstance(row.get("id"), str):
                yield row
            elif number < len(lines):
                self._damaged.append(number)

    def _write(self, rows: Iterable[Prediction]) -> None:
        write_text(self.file, "".join(map(_line, rows)))


def told(item: Any) -> list[dict[str, str]] | None:
    """The turns before an item's text as its row keeps them; None where there are none."""
    return [turn._asdict() for turn in getattr(item, "before", ())] or None


def _line(row: Prediction) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
