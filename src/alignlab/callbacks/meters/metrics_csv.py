"""metrics.csv in the run directory: one row a step, training and validation together."""

import csv
from pathlib import Path

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from alignlab.files.writing import replaced

LoggedRow = dict[str, float]


class MetricsCsv(Logger):
    """Appends rows to `<save_dir>/metrics.csv` and goes on with a file that is already there.

    Lightning's own CSV logger deletes the file of a run that is resumed. A row holds all that was logged at one step;
    columns that appear later cause one rewrite of the file. A last line without its end, of a run that was killed,
    doesn't count.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self.file = Path(save_dir) / "metrics.csv"
        self.rows: list[LoggedRow] = []  # all of the run, oldest first
        self._columns = ["step"]
        self._num_written = 0
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
        if columns or not self.file.exists():
            self._columns += sorted(columns)
            self._rewrite()
        elif new:
            with self.file.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._columns).writerows(new)
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
        with replaced(self.file) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(self.rows)

    def _read(self) -> None:
        text = self.file.read_bytes().decode("utf-8", errors="replace")
        whole = text[: text.rfind("\n") + 1]
        reader = csv.DictReader(whole.splitlines())
        self._columns = list(reader.fieldnames or ["step"])
        self.rows = [{key: _number(value) for key, value in row.items() if value} for row in reader]
        self._num_written = len(self.rows)
        if whole != text:
            self._rewrite()


def _number(text: str) -> float:
    """An integer stays one, so that a file read and written again is the same."""
    return int(text) if text.lstrip("-").isdigit() else float(text)
