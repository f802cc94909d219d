"""Signals that end a run in order: taken down at once, obeyed between two steps."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

# What asks for an orderly end: Ctrl-C, `kill` and the end of a Slurm job's time, Slurm's and submitit's warnings, a closed terminal.
ORDERLY = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


class Interrupted(BaseException):
    """The run was asked to stop. During training it is raised on all ranks between the same two steps."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(self.name)

    @property
    def name(self) -> str:
        return signal.Signals(self.number).name

    @property
    def exit_code(self) -> int:
        """The shell's: 130 for SIGINT, 143 for SIGTERM, 138 for SIGUSR1, 140 for SIGUSR2, 129 for SIGHUP."""
        return 128 + self.number


class Inbox:
    """While it is open, signals are noted instead of ending the process, if `deferred`; else they raise `Interrupted` at once.

    A second Ctrl-C raises KeyboardInterrupt wherever the program is. Other signals may come twice (Slurm and submitit both send
    theirs) and mean the same. Signals that the parent has switched off (nohup) stay so. In another thread than the main one it stays empty.
    """

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        self.received = 0  # number of the first signal
        self.deferred = False
        self._say = say
        self._owner = os.getpid()
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in ORDERLY:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def keep(self) -> None:
        """Puts the handlers back in place after somebody else, Lightning for one, has set its own."""
        for number in self._before:
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a data loading worker inherits the handler; it ends with its parent
            return
        if number == signal.SIGINT and self.received == number:
            raise KeyboardInterrupt
        first, self.received = self.received == 0, self.received or number
        if not self.deferred:
            raise Interrupted(number)
        if first and self._say is not None:
            self._say(f"{signal.Signals(number).name}: stopping after this step" + _hint(number))


def _hint(number: int) -> str:
    return " (Ctrl-C again: at once, without saving)" if number == signal.SIGINT else ""
