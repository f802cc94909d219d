"""A picture that is a part of a larger file, as far as a path can say of one that is a file of its own."""

import io
import os
from pathlib import Path
from stat import S_IFREG
from typing import NamedTuple

PICTURE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"))


class Member(NamedTuple):
    """Bytes [offset, offset + size) of a file, read when they are asked for; other bytes aren't."""

    file: Path
    offset: int
    size: int
    name: str  # of the picture in the file

    def read_bytes(self) -> bytes:
        """Raises OSError where the file isn't there or has become shorter."""
        handle = os.open(self.file, os.O_RDONLY)
        try:
            content = os.pread(handle, self.size, self.offset)
        finally:
            os.close(handle)
        if len(content) < self.size:
            raise OSError(f"{self.file} ends within it")
        return content

    def open(self, mode: str = "rb") -> io.BytesIO:
        return io.BytesIO(self.read_bytes())

    def stat(self) -> os.stat_result:
        """A file of so many bytes."""
        return os.stat_result((S_IFREG, 0, 0, 1, 0, 0, self.size, 0, 0, 0))

    def __str__(self) -> str:
        return f"{self.name} in {self.file}"
