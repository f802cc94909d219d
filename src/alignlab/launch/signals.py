"""Signals that end a run in order: taken down at once, obeyed between two steps."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from types import FrameType, TracebackType
from typing import Self

# What asks for an orderly end: Ctrl-C, `kill` and the end of a Slurm job's time, Slurm's and submitit's warnings, a
# closed terminal.
ORDERLY = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)

UNHEARD = 30.0  # seconds in which the main thread comes back to Python, or it never will
AT_ONCE = 5.0  # seconds that the inbox's thread may be behind the main one


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
    """While it is open, signals are noted instead of ending the process, if `deferred`; else they raise `Interrupted`
    at once.

    A second Ctrl-C raises KeyboardInterrupt wherever the program is. Other signals may come twice (Slurm and submitit
    both send theirs) and mean the same. Signals that the parent has switched off (nohup) stay so. In another thread
    than the main one it stays empty.

    Python tells the main thread of a signal when it comes back from the call it is in. In a collective operation that
    others never join it doesn't: a thread of the inbox hears too, and calls `unheard` with the number if the main
    thread hasn't within `patience` seconds.
    """

    def __init__(
        self,
        say: Callable[[str], None] | None = None,
        unheard: Callable[[int], None] | None = None,
        patience: float = UNHEARD,
    ) -> None:
        self.received = 0  # number of the first signal
        self.deferred = False
        self._say, self._unheard, self._patience = say, unheard, patience
        self._heard = 0.0  # when, by the monotonic clock, the main thread last heard a signal
        self._owner = os.getpid()
        self._before: dict[int, object] = {}
        self._bell: socket.socket | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in ORDERLY:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._receive)
        if self._unheard is not None:
            self._listen()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if self._bell is not None:
            signal.set_wakeup_fd(-1)
            self._bell.close()  # the thread reads the end of it

    def keep(self) -> None:
        """Puts the handlers back in place after somebody else, Lightning for one, has set its own."""
        for number in self._before:
            signal.signal(number, self._receive)

    def _listen(self) -> None:
        ear, self._bell = socket.socketpair()
        self._bell.setblocking(False)
        signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
        _leave_workers_alone()
        threading.Thread(target=self._hear, args=(ear,), daemon=True, name="signals").start()

    def _hear(self, ear: socket.socket) -> None:
        with ear:
            while data := ear.recv(1):
                if data[0] not in self._before or os.getpid() != self._owner:
                    continue
                rung = time.monotonic()
                while self._heard < rung - AT_ONCE and time.monotonic() < rung + self._patience:
                    time.sleep(0.1)
                if self._heard < rung - AT_ONCE:
                    self._unheard(data[0])

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a data loading worker inherits the handler; it ends with its parent
            return
        self._heard = time.monotonic()
        if number == signal.SIGINT and self.received == number:
            raise KeyboardInterrupt
        first, self.received = self.received == 0, self.received or number
        if not self.deferred:
            raise Interrupted(number)
        if first and self._say is not None:
            self._say(f"{signal.Signals(number).name}: stopping after this step" + _hint(number))


@cache
def _leave_workers_alone() -> None:
    """Data loading workers have signals of their own; what is registered stays, so once a process."""
    os.register_at_fork(after_in_child=_silence)


def _silence() -> None:
    with suppress(ValueError):  # not in a main thread
        signal.set_wakeup_fd(-1)


def _hint(number: int) -> str:
    return " (Ctrl-C again: at once, without saving)" if number == signal.SIGINT else ""
