"""metrics.csv in the run directory: one row a step, training and validation together."""

import csv
from pathlib import Path

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from alignlab.files.aside import set_aside
from alignlab.files.writing import replaced

LoggedRow = dict[str, float]


class MetricsCsv(Logger):
    """Appends rows to `<save_dir>/metrics.csv` and goes on with a file that is already there.

    Lightning's own CSV logger deletes the file of a run that is resumed. A row holds all that was logged at one step;
    columns that appear later cause one rewrite of the file. A last line without its end, of a run that was killed,
    doesn't count. A file that is damaged otherwise is set aside; what can be read of it goes on.

    Attributes:
        notes: what was wrong with the file.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self.file = Path(save_dir) / "metrics.csv"
        self.rows: list[LoggedRow] = []  # all of the run, oldest first
        self._columns = ["step"]
        self._num_written = 0
        self._is_whole = True  # whether the file holds what was written: False while it is being written to
        self.notes: list[str] = []
        if self.file.exists():
            self._read()

    name = version = ""  # so that Lightning derives no sub-folders from them

    @property
    def save_dir(self) -> str:
        return str(self.file.parent)

    def log_hyperparams(self, *args: object, **kwargs: object) -> None:
        """Nothing: the resolved config is a file of its own."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        step = int(step or 0)
        if self.rows and self.rows[-1]["step"] == step:
            self.rows[-1].update(metrics)
            if len(self.rows) == self._num_written:  # flushed already: a checkpoint came in between
                self._columns += sorted(metrics.keys() - set(self._columns))
                self._rewrite()
        else:
            self.flush()
            self.rows.append({"step": step, **metrics})

    @rank_zero_only
    def flush(self) -> None:
        """Writes the rows that are complete."""
        new = self.rows[self._num_written :]
        columns = set().union(*new) - set(self._columns)
        if columns or not self._is_whole or not self.file.exists():
            self._columns += sorted(columns)
            self._rewrite()
        elif new:
            self._is_whole = False  # a full disk may leave half of it: then the next time writes everything anew
            with self.file.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._columns).writerows(new)
            self._is_whole = True
        self._num_written = len(self.rows)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.flush()

    @rank_zero_only
    def forget_after(self, step: int) -> None:
        """Drops rows of steps that a resumed run will do again (0-based, so `step` itself is done again)."""
        if not self.rows:
            return
        self.rows = [row for row in self.rows if row["step"] < step]
        self._rewrite()
        self._num_written = len(self.rows)

    def _rewrite(self) -> None:
        self._is_whole = False  # a header of new columns that isn't on disk must not be followed by such rows
        with replaced(self.file) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(self.rows)
        self._is_whole = True

    def _read(self) -> None:
        try:
            content = self.file.read_bytes()
        except OSError as error:
            return self._begin_anew(f"can't be read ({error.strerror})")
        whole = content[: content.rfind(b"\n") + 1]
        lines = [_fields(line) for line in whole.decode("utf-8", errors="replace").split("\n") if line.strip()]
        header = lines.pop(0) if lines else []
        if content and (header[:1] != ["step"] or len(set(header)) < len(header)):
            return self._begin_anew("has no line of columns that begins with step")
        for values in lines:
            row = _row(header, values, before=self.rows)
            self.rows += [] if row is None else [row]
        self._columns = header or ["step"]
        self._num_written = len(self.rows)
        if (bad := len(lines) - len(self.rows)) > 0:
            return self._begin_anew(f"has {bad} lines that are no rows of it; the other {len(self.rows)} go on")
        if whole != content and rank_zero_only.rank == 0:
            self._rewrite()
        return None

    def _begin_anew(self, why: str) -> None:
        """Sets the file aside, on rank zero, and writes what was read of it."""
        if rank_zero_only.rank == 0:
            aside = set_aside(self.file)
            self.notes.append(f"{self.file.name} {why}; the file as it was is {aside.name}")
            self._rewrite()


def _fields(line: str) -> list[str]:
    """A line's, read alone: a quote too many in a damaged one must not swallow those that follow."""
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error:
        return []


def _row(columns: list[str], values: list[str], before: list[LoggedRow]) -> LoggedRow | None:
    """A line's numbers by column; None for one that the logger hasn't written: more or fewer fields than columns,
    something that is no number, a step that doesn't follow.
    """
    if len(values) != len(columns):
        return None
    try:
        row = {name: _number(value) for name, value in zip(columns, values, strict=True) if value}
    except ValueError:
        return None
    step = row.get("step")
    follows = not before or (isinstance(step, int) and step > before[-1]["step"])
    return row if isinstance(step, int) and follows else None


def _number(text: str) -> float:
    """An integer stays one, so that a file read and written again is the same."""
    return int(text) if text.lstrip("-").isdigit() else float(text)
