"""One line at the bottom of a terminal, above which everything else is printed."""

import logging
import os
import shutil
import sys
import threading
from typing import Any, TextIO

CLEAR = "\r\x1b[2K"


class StatusLine:
    """Keeps a line apart from what this process prints and logs meanwhile: that clears it, and it is drawn again below.

    Between `start` and `stop`, standard output and error, where they are terminals, and log handlers that write to them
    go through this object.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        os.register_at_fork(after_in_child=self._renew_lock)
        self._out: TextIO | None = None
        self._replaced: list[tuple[Any, str, Any]] = []  # what has an attribute, its name, what it was
        self._text = ""
        self._amid = False  # somebody has printed half a line

    def start(self) -> None:
        """Begins to catch what is printed."""
        self._out = sys.stdout
        stand_ins = {
            id(stream): _Above(stream, self) for stream in (sys.stdout, sys.stderr) if getattr(stream, "isatty", bool)()
        }
        for name in ("stdout", "stderr"):
            self._replace(sys, name, stand_ins)
        loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]
        for handler in {id(h): h for logger in loggers for h in logger.handlers}.values():
            self._replace(handler, "stream", stand_ins)

    def show(self, text: str) -> None:
        """Draws the line anew, cut to the terminal's width."""
        with self._lock:
            self._text = text
            self._draw()

    def stop(self) -> None:
        """Leaves the line as it stands and gives the streams back."""
        with self._lock:
            for owner, name, stream in self._replaced:
                setattr(owner, name, stream)
            self._replaced.clear()
            if self._out is not None and self._text:
                self._out.write("\n")
                self._out.flush()
            self._out, self._text = None, ""

    def print_above(self, stream: TextIO, text: str) -> int:
        """Writes what somebody prints where the line stands, and the line below it."""
        with self._lock:
            if self._out is not None and self._text and not self._amid:
                self._out.write(CLEAR)
                self._out.flush()
            written = stream.write(text)
            stream.flush()
            self._amid = bool(text) and not text.endswith("\n") if text else self._amid
            self._draw()
        return written

    def _draw(self) -> None:
        if self._out is not None and self._text and not self._amid:
            width = shutil.get_terminal_size().columns
            self._out.write(CLEAR + self._text[: max(width - 1, 1)])
            self._out.flush()

    def _replace(self, owner: Any, name: str, stand_ins: dict[int, "_Above"]) -> None:
        stream = getattr(owner, name, None)
        if id(stream) in stand_ins:
            self._replaced.append((owner, name, stream))
            setattr(owner, name, stand_ins[id(stream)])

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()  # another thread may have held it when this process began


class _Above:
    """A stream whose text appears above the line."""

    def __init__(self, stream: TextIO, line: StatusLine) -> None:
        self._stream, self._line = stream, line

    def write(self, text: str) -> int:
        return self._line.print_above(self._stream, text)

    def writelines(self, lines: Any) -> None:
        for text in lines:
            self.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
