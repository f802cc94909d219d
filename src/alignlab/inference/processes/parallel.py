"""Runs a decoder's parts in processes of their own and lets them work as one: start, ask, listen to, and end them.

The parent holds no weights. Every rank decodes the same batch with its part of the matrices; sums and concatenations
over ranks keep all logits equal, and tokens are chosen alike everywhere because a request's random numbers come from
its seed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE = timedelta(minutes=30)  # of a rank for the others: one may read its weights much more slowly


class WorkerError(RuntimeError):
    """A worker process failed; the message holds its traceback."""


class Workers:
    """Processes with a gloo group that each hold one object and answer calls of its methods.

    Args:
        make: builds the object from (rank, ranks) in each process; must be picklable.
        count: number of processes.
        environment: variables of the processes besides this one's.
    """

    def __init__(
        self, make: Callable[[int, int], object], count: int, environment: dict[str, str] | None = None
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="alignlab-workers-")
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        threads = max(1, torch.get_num_threads() // count)
        for rank in range(count):
            own, other = context.Pipe()
            arguments = (other, make, rank, count, self._folder.name, threads, environment or {})
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            other.close()
            self._pipes.append(own)
            self._processes.append(process)
        self._collect(None)

    def call(self, method: str, *arguments: object, on_event: Callable[[Any], None] | None = None) -> list[Any]:
        """Calls a method in all processes and gives their answers by rank; rank 0's events are passed on as they come.

        Raises:
            ValueError: as raised by the method, in whichever process.
            WorkerError: a process ended, or raised something else.
        """
        for pipe in self._pipes:
            pipe.send((method, arguments))
        return self._collect(on_event)

    def _collect(self, on_event: Callable[[Any], None] | None) -> list[Any]:
        answers: dict[int, Any] = {}
        while len(answers) < len(self._pipes):
            ready = wait([pipe for rank, pipe in enumerate(self._pipes) if rank not in answers])
            for pipe in ready:
                rank = self._pipes.index(pipe)
                try:
                    kind, value = pipe.recv()
                except (EOFError, ConnectionError):
                    code, count = self._exit_code(rank), len(self._pipes)
                    self.close()
                    raise WorkerError(f"process {rank} of {count} ended with code {code}") from None
                if kind == "event" and on_event is not None:
                    on_event(value)
                elif kind == "answer":
                    answers[rank] = value
                elif kind == "wrong":  # bad input: the same on all ranks, but one message is enough
                    self.close()
                    raise ValueError(value)
                elif kind == "failed":
                    count = len(self._pipes)
                    self.close()
                    raise WorkerError(f"process {rank} of {count}:\n{value}")
        return [answers[rank] for rank in range(len(self._pipes))]

    def _exit_code(self, rank: int) -> int | None:
        self._processes[rank].join(5)
        return self._processes[rank].exitcode

    def close(self) -> None:
        """Ends the processes."""
        for pipe in self._pipes:
            pipe.close()  # a worker that waits for a call ends
        deadline = time.monotonic() + 2
        for process in self._processes:
            process.join(max(0.1, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        self._pipes, self._processes = [], []
        self._folder.cleanup()


def _serve(
    pipe: Connection,
    make: Callable[[int, int], object],
    rank: int,
    ranks: int,
    folder: str,
    threads: int,
    environment: dict[str, str],
) -> None:
    """Life of a worker: make the object, answer calls until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
    os.environ.update({**environment, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)})
    try:
        _quiet()
        torch.set_num_threads(threads)
        store = f"file://{Path(folder) / 'store'}"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=ranks, timeout=PATIENCE)
        served = make(rank, ranks)
        served.emit = (lambda event: pipe.send(("event", event))) if rank == 0 else (lambda event: None)
        pipe.send(("answer", None))
        while True:
            method, arguments = pipe.recv()
            pipe.send(("answer", getattr(served, method)(*arguments)))
    except (EOFError, ConnectionError):
        pass
    except ValueError as error:
        pipe.send(("wrong", str(error)))
    except BaseException:  # whatever it was, the parent must not wait for it
        pipe.send(("failed", traceback.format_exc()))
    finally:
        os._exit(0)  # gloo's threads would wait for ranks that have ended


def _quiet() -> None:
    """No bars, and no warnings about what libraries do among themselves: the terminal is the parent's."""
    from tqdm import tqdm
    from transformers.utils import logging

    tqdm.set_lock(threading.RLock())  # its own would be a semaphore between processes that `os._exit` leaves behind
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")


def reduce_over_ranks(x: Tensor) -> Tensor:
    """Sum over all processes."""
    x = x.contiguous()
    dist.all_reduce(x)
    return x


class Gather:
    """Concatenation of the last dimension over processes whose parts may differ in size."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes

    def __call__(self, x: Tensor) -> Tensor:
        largest = max(self.sizes)
        padded = torch.nn.functional.pad(x, (0, largest - x.shape[-1])).contiguous()
        parts = [torch.empty_like(padded) for _ in self.sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[..., :size] for part, size in zip(parts, self.sizes, strict=True)], dim=-1)
