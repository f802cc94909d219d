"""Rows flat on disk, so that millions of them take a few bytes each in memory and are shared by all workers."""

import json
import os
import weakref
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from alignlab.data.temporary import temporary_folder

_written = json.JSONEncoder(ensure_ascii=False).encode


class FlatRows(Sequence):
    """Values of JSON one behind the other in a temporary file, in their order; a row is read when it is asked for."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self._folder, remove = temporary_folder("rows")
        self._remove = weakref.finalize(self, remove)
        starts = array("q", [0])
        with (self._folder / "rows").open("wb") as out:
            for row in rows:
                starts.append(starts[-1] + out.write(_written(row).encode()))
        self._starts = np.frombuffer(starts, np.int64)
        self._file: Any = None

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> Any:
        if not 0 <= number < len(self):
            raise IndexError(number)
        if self._file is None:
            self._file = (self._folder / "rows").open("rb", buffering=0)
        start, end = int(self._starts[number]), int(self._starts[number + 1])
        # Not mapped into memory: rows that were read would count as this process's.
        return json.loads(os.pread(self._file.fileno(), end - start, start))

    def __getstate__(self) -> dict:
        return {"_folder": self._folder, "_starts": self._starts, "_file": None}
