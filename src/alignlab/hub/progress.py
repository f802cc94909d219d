"""How far all files are: a bar on a terminal, else a line every ten seconds."""

import sys
import threading
import time
from types import TracebackType

EVERY = 10.0  # seconds


class Progress:
    """Counts bytes; called from several threads."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self._lock, self._said, self._bar = threading.Lock(), time.monotonic(), None

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            columns = (
                progress.BarColumn(),
                progress.DownloadColumn(),
                progress.TransferSpeedColumn(),
                progress.TimeRemainingColumn(),
            )
            self._bar = progress.Progress(*columns, console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task("", total=self.total)
        return self

    def __call__(self, size: int) -> None:
        with self._lock:
            self.done += size
            now = time.monotonic()
            say = self._bar is None and now - self._said > EVERY
            self._said = now if say else self._said
        if self._bar is not None:
            self._bar.update(self._task, advance=size)
        elif say:
            print(f"{self.done / 1e6:,.0f} of {self.total / 1e6:,.0f} MB", file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
