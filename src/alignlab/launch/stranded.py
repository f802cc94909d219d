"""Whether this process waits in a collective operation that others will never join, and where it stands.

torch counts the collective operations that a process has begun, group by group. Who has ended in order has counted for
the last time: a process that has begun more than that waits in vain, unless it is at work with something else, such as
files that are its own to write.
"""

import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

Counts = dict[str, int]  # name of a process group -> collective operations begun

PACKAGE = str(Path(__file__).resolve().parent.parent)


class Parting(NamedTuple):
    """A rank that has ended in order, and how many collective operations it had begun."""

    rank: int
    counts: Counts


def counts() -> Counts:
    """Collective operations that this process has begun; empty without process groups."""
    dist = sys.modules.get("torch.distributed")  # this module is imported long before torch
    if dist is None or not dist.is_available() or not dist.is_initialized():
        return {}
    groups = dist.distributed_c10d._world.pg_map
    return {group.group_name: group._get_sequence_number_for_group() for group in list(groups)}


def missing(partings: Iterable[Parting], own: Counts) -> list[int]:
    """Ranks that have left without a collective operation that this process has begun."""
    return [p.rank for p in partings if any(own.get(name, 0) > count for name, count in p.counts.items())]


class Stillness:
    """How long the main thread has stood at the same place in the same calls."""

    def __init__(self) -> None:
        self._place: tuple | None = None
        self._since = time.monotonic()

    def seconds(self) -> float:
        """Since when the place hasn't changed; to be asked again and again."""
        place = tuple((frame.f_code, frame.f_lasti) for frame in _frames())
        if place != self._place:
            self._place, self._since = place, time.monotonic()
        return time.monotonic() - self._since


def place() -> str:
    """Where the main thread stands: the innermost call of this package, e.g. "callbacks/keeping/export.py:35
    (on_fit_end)".
    """
    frames = _frames()
    own = [frame for frame in frames if frame.f_code.co_filename.startswith(PACKAGE)]
    if not frames:
        return "an unknown place"
    frame = (own or frames)[0]
    file = frame.f_code.co_filename.removeprefix(PACKAGE).lstrip("/\\")
    return f"{file}:{frame.f_lineno} ({frame.f_code.co_name})"


def _frames() -> list:
    """Of the main thread, innermost first."""
    frame = sys._current_frames().get(threading.main_thread().ident)
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames
