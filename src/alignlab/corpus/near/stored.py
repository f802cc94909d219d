"""An array in a file of numpy's, read in stretches, so that nothing else of it is in memory."""

from pathlib import Path

import numpy as np


class Stored:
    """An array that `numpy.save` wrote, or an empty one where there is no file.

    Args:
        shape: of the empty one.

    Attributes:
        shape: of the array.
    """

    def __init__(self, file: Path, shape: tuple[int, ...] = (0,)) -> None:
        self._file, self.shape, self._type, self._at = file, shape, np.dtype(np.uint32), 0
        if file.exists():
            with file.open("rb") as opened:
                assert np.lib.format.read_magic(opened) == (1, 0), file
                self.shape, by_columns, self._type = np.lib.format.read_array_header_1_0(opened)
                assert not by_columns, file
                self._at = opened.tell()

    def read(self, start: int, stop: int) -> np.ndarray:
        """Its elements from `start` up to `stop`, counted through all its axes."""
        if start == stop:
            return np.zeros(0, self._type)
        return np.fromfile(self._file, self._type, stop - start, offset=self._at + start * self._type.itemsize)
