"""How fast a training goes and how long it will take, without the time spent in validation."""

import math
import time
from collections import deque

import lightning

WINDOW = 30.0  # seconds of training that the rate is taken over


class Pace:
    """Counts optimizer steps on a clock that stands still while `paused`."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()  # training seconds, steps done
        self._begun = time.perf_counter()
        self._first: tuple[float, int] | None = None  # wall clock and step when the first step was done
        self._paused, self._since = 0.0, None
        self.step, self.total = 0, None

    def begin(self, step: int, total: int | None) -> None:
        """The training starts at a step."""
        self.__init__()
        self.step, self.total = step, total

    def done(self, step: int) -> None:
        """So many steps are done."""
        if step == self.step:
            return
        self.step, now = step, self._seconds()
        if self._first is None:
            self._first = (time.perf_counter(), step)
        self._marks.append((now, step))
        while len(self._marks) > 2 and self._marks[1][0] < now - WINDOW:
            self._marks.popleft()

    def pause(self) -> None:
        """A validation begins."""
        if self._since is None:
            self._since = time.perf_counter()

    def go_on(self) -> None:
        """A validation has ended."""
        if self._since is not None:
            self._paused += time.perf_counter() - self._since
            self._since = None

    @property
    def rate(self) -> float | None:
        """Steps a second of late; None before two steps are done. The first one, which builds and compiles, doesn't
        count.
        """
        (begin, first), (end, last) = (self._marks[0], self._marks[-1]) if self._marks else ((0.0, 0), (0.0, 0))
        return (last - first) / (end - begin) if end > begin else None

    @property
    def left(self) -> float | None:
        """Seconds to the last step, at the pace so far, validations included; None while nobody knows."""
        if self.total is None or self._first is None or self.step == self._first[1]:
            return None
        since, first = self._first
        return (self.total - self.step) * (time.perf_counter() - since) / (self.step - first)

    def _seconds(self) -> float:
        return (self._since or time.perf_counter()) - self._begun - self._paused


def last_step(trainer: lightning.Trainer) -> int | None:
    """The number of optimizer steps of the whole training; None where it has no end that is known."""
    steps = trainer.estimated_stepping_batches
    return None if math.isinf(steps) else int(steps)


def said_rate(rate: float) -> str:
    """Steps a second, or seconds a step where that is slow."""
    return f"{rate:.3g} steps/s" if rate >= 1 else f"{1 / rate:.3g} s a step"


def said_time(seconds: float) -> str:
    """As a clock shows it: 0:07, 12:30, 3:07:00."""
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
