"""Standard output and error that a run outlives: closed, on a full disk, or for letters that their encoding lacks; and
a Python that knows all names of files whatever the locale.
"""

import io
import os
import select
import sys
from contextlib import suppress


class Lasting(io.RawIOBase):
    """A descriptor's bytes; what can't be written any more is dropped, and said once on standard error.

    Args:
        name: of the stream, for that line.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        super().__init__()
        self._descriptor, self._name = descriptor, name
        self._lost = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: bytes) -> int:
        view = memoryview(data).cast("B")
        while not self._lost:
            try:
                return os.write(self._descriptor, view)
            except BlockingIOError:  # somebody has made the terminal or pipe non-blocking
                select.select([], [self._descriptor], [])
            except OSError as error:
                self._lost = True
                line = f"{self._name} can't be written to ({error.strerror}); the run goes on without it\n"
                with suppress(OSError):
                    os.write(2, line.encode())
        return len(view)


def speak_utf8() -> None:
    """Starts this process anew in Python's UTF-8 mode where an ASCII or Latin-1 locale would have it stumble over names
    of files, in libraries too; what is printed stays in the locale's letters.
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        printed = getattr(sys.stdout, "encoding", None) or "ascii"
        mode = {"PYTHONUTF8": "1", "PYTHONIOENCODING": f"{printed}:backslashreplace"}
        os.execve(sys.executable, sys.orig_argv, os.environ | mode)


def make_lasting() -> None:
    """Puts such streams in the place of this process's own; streams that somebody has replaced, as tests do, stay."""
    for descriptor in (0, 1, 2):  # or the next file that is opened takes the number, and what is printed goes there
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name, descriptor, words in (("stdout", 1, "standard output"), ("stderr", 2, "standard error")):
        stream, own = getattr(sys, name), getattr(sys, f"__{name}__")
        if stream is not own or isinstance(getattr(getattr(stream, "buffer", None), "raw", None), Lasting):
            continue
        encoding = "utf-8" if stream is None else stream.encoding
        if stream is not None:
            with suppress(OSError):
                stream.flush()
        raw = Lasting(descriptor, words)
        buffer = io.BufferedWriter(raw)
        line_buffering = descriptor == 2 or raw.isatty()
        lasting = io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=line_buffering)
        setattr(sys, name, lasting)
        setattr(sys, f"__{name}__", lasting)
