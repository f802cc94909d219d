"""Ranks that die or leave are noticed by the others: every rank keeps a connection to rank zero, and the kernel closes
those of the dead.

A collective operation with a dead rank may wait for half an hour, one with a rank that has ended in order for ever. A
closed connection is seen at once, also by ranks deep in a kernel or in a long validation, because a thread of its own
looks. Machines that vanish are found by TCP keep-alive within 40 s.
"""

import json
import os
import secrets
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

from alignlab.launch import stranded
from alignlab.launch.stranded import Parting

GRACE = 10.0  # seconds for a rank to end by itself after it was told
CONNECT = 60.0  # seconds for a rank to reach rank zero
PATIENCE = 600.0  # seconds that other ranks give rank zero for its last files
LOOK = 0.5  # seconds between two looks at child processes
STANDSTILL = 20.0  # seconds at one place, in a collective operation that others have left

Children = Callable[[], Mapping[int, subprocess.Popen]]  # rank -> process, of the ranks that this one started


class RankDied(Exception):
    """Another rank has gone, and the run with it; the message says which and how."""


class RankLeft(RankDied):
    """Another rank has ended in order while this one waits for it in a collective operation; the message says where."""


class Address(NamedTuple):
    """Where rank zero listens, and the word that lets a rank in."""

    host: str
    port: int
    word: str


class RankWatch:
    """Knows which rank died and how; ends this process if it doesn't end by itself.

    Rank zero calls `listen` and sends the address to the others, which call `join`. Whoever ends in order says so with
    `part`; a connection that ends without that is a death. Rank zero tells everybody, and each rank has `grace`
    seconds to fail at its own collective operation; then `end` is called with the cause, from the watching thread, and
    should not return. So it is if a rank has stood still for `standstill` seconds in a collective operation that
    others have left.
    Before its process ends, a rank calls `leave`, which lets rank zero be the first: torchrun and srun may kill the
    others as soon as one has ended with a code that isn't 0, and rank zero has files to write.

    Args:
        children: processes whose exit codes say how a rank died.
        end: last words, e.g. result.json, and the process's end.
    """

    def __init__(
        self,
        end: Callable[[RankDied], None],
        children: Children = dict,
        grace: float = GRACE,
        standstill: float = STANDSTILL,
    ) -> None:
        self._end, self._children, self._grace, self._standstill = end, children, grace, standstill
        self._rank = 0
        self._partings: list[Parting] = []
        self._cause: str | None = None
        self._known = threading.Event()
        self._left = threading.Event()
        self._zero_left = threading.Event()  # or died
        self._zero: socket.socket | None = None  # the connection to rank zero, on other ranks
        self._rest: list[socket.socket] = []  # open connections

    def listen(self, host: str, world_size: int) -> Address:
        """Begins to watch on rank zero; `host` is how the other ranks call this machine."""
        server = socket.create_server((host, 0), backlog=world_size)
        word = secrets.token_hex(16)
        self._thread(lambda: self._serve(server, word))
        return Address(host, server.getsockname()[1], word)

    def join(self, address: Address, rank: int) -> None:
        """Begins to watch on another rank. Raises OSError if rank zero can't be reached."""
        link = _alive(socket.create_connection((address.host, address.port), timeout=CONNECT))
        link.settimeout(None)
        _say(link, {"word": address.word, "rank": rank, "pid": os.getpid(), "host": socket.gethostname()})
        self._rest.append(link)
        self._zero, self._rank = link, rank
        self._thread(lambda: self._listen_to_rank_zero(link))

    def watch_children(self) -> None:
        """Begins to watch child processes, also those that don't come as far as to join."""
        self._thread(self._look_at_children)

    def part(self) -> None:
        """Training has ended in order: from here on no rank is missed, and those that still need this one learn that
        it is gone.
        """
        self._left.set()
        for link in list(self._rest):
            _say(link, {"parts": Parting(self._rank, stranded.counts())} | ({"leaves": True} if self._zero else {}))

    def leave(self) -> None:
        """The process is about to end, after `part`.

        Rank zero tells the others and waits for those that it started; they wait for its word.
        """
        if self._zero is not None:
            self._zero_left.wait(PATIENCE)
            return
        for link in list(self._rest):
            _say(link, {"leaves": True})
        deadline = time.monotonic() + 3 * self._grace
        for process in self._children().values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))

    def cause(self, wait: float = 3.0) -> str | None:
        """Which rank died and how, after waiting a moment for the news; None if all are there."""
        self._known.wait(wait if self._rest or self._children() else 0)
        return self._cause

    def _thread(self, work: Callable[[], None]) -> None:
        threading.Thread(target=work, daemon=True, name="rank-watch").start()

    def _serve(self, server: socket.socket, word: str) -> None:
        """Rank zero: lets ranks in and waits for one that goes without a word."""
        selector = selectors.DefaultSelector()
        selector.register(server, selectors.EVENT_READ)
        who: dict[socket.socket, dict] = {}
        buffers: dict[socket.socket, bytes] = {}
        while not self._left.is_set():
            for key, _ in selector.select(timeout=LOOK):
                if key.fileobj is server:
                    link = _alive(server.accept()[0])
                    selector.register(link, selectors.EVENT_READ)
                    buffers[link] = b""
                    continue
                link = key.fileobj
                data = _receive(link)
                buffers[link] += data
                lines = buffers[link].split(b"\n")
                buffers[link] = lines.pop()
                messages = [json.loads(line) for line in lines]
                for message in messages:
                    if message.get("word") == word:
                        who[link] = message
                        self._rest.append(link)
                    if link in who and "parts" in message:
                        self._parted(message["parts"])
                        for other in self._rest:
                            if other is not link:
                                _say(other, {"parts": message["parts"]})
                leaves = any("leaves" in message for message in messages)
                if leaves or not data or (messages and link not in who):
                    selector.unregister(link)
                    if link in self._rest and not leaves:
                        self._rest.remove(link)
                        self._died(self._obituary(**{key: who[link][key] for key in ("rank", "pid", "host")}))

    def _listen_to_rank_zero(self, link: socket.socket) -> None:
        """Other ranks: waits for news of a death, or for rank zero's own."""
        rest = b""
        while data := _receive(link):
            *lines, rest = (rest + data).split(b"\n")
            for message in map(json.loads, lines):
                if "parts" in message:
                    self._parted(message["parts"])
                if "leaves" in message:
                    self._zero_left.set()
                    return
                if "died" in message:
                    self._died(message["died"])
                    return
        self._zero_left.set()
        self._died("rank 0 died: its connection ended without a word")

    def _look_at_children(self) -> None:
        while not self._left.wait(LOOK):
            for rank, process in self._children().items():
                if process.poll() not in (None, 0):
                    self._died(self._obituary(rank, process.pid, socket.gethostname()))

    def _parted(self, message: list) -> None:
        """Another rank has ended in order: this one must not wait for it."""
        self._partings.append(Parting(*message))
        if len(self._partings) == 1:
            self._thread(self._look_at_ourselves)

    def _look_at_ourselves(self) -> None:
        stillness = stranded.Stillness()
        while not self._left.wait(LOOK):
            seconds, gone = stillness.seconds(), stranded.missing(self._partings, stranded.counts())
            if gone and seconds >= self._standstill:
                ranks = f"rank{'s' * (len(gone) > 1)} {', '.join(map(str, sorted(gone)))}"
                self._end(
                    RankLeft(
                        f"rank {self._rank} has waited for {seconds:.0f} s at {stranded.place()} in a collective "
                        "operation"
                        f" for {ranks}, which ended in order before it"
                    )
                )
                return

    def _obituary(self, rank: int, pid: int, host: str) -> str:
        process = self._children().get(rank)
        if process is not None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
        how = "its connection ended without a word" if process is None else ended_how(process.returncode)
        return f"rank {rank} died (process {pid} on {host}): {how}"

    def _died(self, cause: str) -> None:
        """Takes the cause down, tells the others, and ends this process after the grace."""
        if self._left.is_set() or self._cause is not None:
            return
        self._cause = cause
        self._known.set()
        for link in list(self._rest):
            _say(link, {"died": cause})
        if not self._left.wait(self._grace):
            self._end(RankDied(cause))


def ended_how(code: int | None) -> str:
    """What a child's exit code says in words."""
    if code is None:
        return "it still runs"
    if code >= 0:
        return f"it ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def _alive(link: socket.socket) -> socket.socket:
    """Keep-alive: a machine that doesn't answer for 40 s is gone. The kernel answers, so a stopped process isn't."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return link


def _say(link: socket.socket, message: dict) -> None:
    with suppress(OSError):  # it has gone
        link.sendall(json.dumps(message).encode() + b"\n")


def _receive(link: socket.socket) -> bytes:
    try:
        return link.recv(4096)
    except OSError:
        return b""
