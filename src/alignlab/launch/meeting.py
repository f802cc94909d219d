"""Ranks meet before they join in a process group: who is missing is named after a stated time, and signals are heard.

torch's own wait for ranks is one call that knows no names, hears no signal and lasts half an hour.
"""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from subprocess import Popen
from typing import Any

from alignlab.launch.environment import launch
from alignlab.launch.rank_watch import RankDied, ended_how

PATIENCE = 600.0  # seconds that ranks wait for one that nobody here has started
OWN = 1800.0  # seconds that they wait for rank zero's own children, which build their data first
LOOK = 0.2  # seconds between two looks
ANSWER = 30.0  # seconds in which the store answers

_stores: list[Any] = []  # rank zero's serves the others as long as the process lives


class RankMissing(RankDied):
    """Ranks haven't come; the message names them."""


def meet(
    rank: int,
    world_size: int,
    host: str,
    port: int,
    patience: float | None = None,
    children: Mapping[int, Popen] | None = None,
) -> None:
    """Returns when all ranks are there.

    They write their names into torch's store, which rank zero keeps at `port` (torchrun's agent, where it has one),
    and which the process group then uses.

    Args:
        host: of rank zero, and its `port`.
        patience: seconds; None: `OWN` where ranks have started others, else `PATIENCE`.
        children: rank -> process, of the ranks that this one has started.
    Raises:
        RankMissing: the time is up, or a process that belongs here has gone.
    """
    agents = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    child = rank > 0 and launch().starter == "lightning"
    wait = _Wait(rank, world_size, patience or (OWN if children or child else PATIENCE), children or {}, child)
    serves = rank == 0 and not agents
    while not serves and not _answers(host, port):
        wait.look([0], f"nothing answers at {host}:{port}")
    place = f"alignlab/meeting/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    missing = list(range(world_size))
    try:
        store = _store(host, port, world_size, serves)
        store.set(f"{place}/{rank}", socket.gethostname())
        while missing := [each for each in missing if not store.check([f"{place}/{each}"])]:
            wait.look(missing)
    except RankMissing:
        raise
    except RuntimeError as error:  # torch.distributed's
        what = "can't keep" if serves else "has lost"
        raise RankMissing(
            f"rank {rank} {what} the ranks' meeting place {host}:{port} ({_first_line(error)})"
        ) from error


class _Wait:
    def __init__(
        self, rank: int, world_size: int, patience: float, children: Mapping[int, Popen], is_child: bool
    ) -> None:
        self.rank, self.world_size, self.patience, self.children = rank, world_size, patience, children
        self.parent = os.getppid() if is_child else None
        self.began = time.monotonic()

    def look(self, missing: list[int], why: str = "") -> None:
        """A moment's pause; Python hears signals in it."""
        for rank, process in self.children.items():
            if rank in missing and process.poll() is not None:
                raise RankMissing(f"rank {rank} has ended before training began: {ended_how(process.returncode)}")
        if self.parent is not None and os.getppid() != self.parent:
            raise RankMissing(f"the process that has started rank {self.rank} is gone")
        if time.monotonic() - self.began > self.patience:
            names = f"rank{'s' * (len(missing) > 1)} {', '.join(map(str, missing[:20]))}"
            raise RankMissing(
                f"rank {self.rank} of {self.world_size} has waited {self.patience:.0f} s for {names}"
                f"{f': {why}' if why else ''}; has something started as many processes as the trainer is for?"
            )
        time.sleep(LOOK)


def _answers(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), timeout=2.0):
        return True
    return False


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:200]


def _store(host: str, port: int, world_size: int, serves: bool) -> Any:
    from torch.distributed import TCPStore  # only here: this folder is imported long before torch

    store = TCPStore(
        host,
        port,
        world_size,
        is_master=serves,
        timeout=timedelta(seconds=ANSWER),
        wait_for_workers=False,
        multi_tenant=True,  # the process group's own store is the same server
    )
    _stores.append(store)
    return store
