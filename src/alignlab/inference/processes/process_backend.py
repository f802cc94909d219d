"""A backend whose model lives in other processes: passes calls on, and tokens and finished requests
back as they come.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from alignlab.inference.backend import Availability, Backend, Completion, LoadReport, ModelSource, Request
from alignlab.inference.processes.parallel import Workers


class Served:
    """What a worker process holds: a backend, and a way to report while it runs.

    Args:
        backend: that of this rank.
    """

    emit: Callable[[Any], None]

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def load(self, source: ModelSource) -> LoadReport:
        return self.backend.load(source)

    def generate(self, requests: Sequence[Request], batch_size: int | None) -> list[Completion]:
        return self.backend.generate(
            requests,
            batch_size=batch_size,
            on_token=lambda number, token: self.emit(("token", number, token)),
            on_done=lambda number, completion: self.emit(("done", number, completion)),
        )

    def score(self, sequences: Sequence[list[int]]) -> list[list[float]]:
        return self.backend.score(sequences)

    def set_adapter(self, name: str | None) -> None:
        self.backend.set_adapter(name)

    def memory(self) -> dict[str, int]:
        return self.backend.memory()


class ProcessBackend:
    """Starts its processes in `load` and ends them in `close`.

    Args:
        processes: how many.
    """

    name = "processes"
    environment: dict[str, str] = {}  # noqa: RUF012  of the processes

    def __init__(self, processes: int = 2) -> None:
        if processes < 1:
            raise ValueError(f"processes={processes} must be at least 1")
        self.processes = processes
        self._workers: Workers | None = None

    def available(self) -> Availability:
        return Availability(True, "runs wherever torch does")

    def rank(self) -> Callable[[int, int], Served]:
        """What builds each process's object; picklable."""
        raise NotImplementedError

    def load(self, source: ModelSource) -> LoadReport:
        if source.model is not None:
            raise ValueError(
                f"backend={self.name} reads a model's files in its own processes; a live model cannot be given"
            )
        availability = self.available()
        if not availability.ok:
            raise ValueError(f"backend={self.name}: {availability.reason}")
        started = time.perf_counter()
        if self._workers is None:
            self._workers = Workers(self.rank(), self.processes, self.environment)
        reports = self._call("load", source)
        seconds = time.perf_counter() - started
        sizes = sum(r.weight_bytes for r in reports), sum(r.peak_bytes for r in reports)
        return LoadReport(seconds, *sizes, reports[0].device)

    def generate(
        self,
        requests: Sequence[Request],
        *,
        batch_size: int | None = None,
        on_token: Callable[[int, int], None] | None = None,
        on_done: Callable[[int, Completion], None] | None = None,
    ) -> list[Completion]:
        def on_event(event: tuple[str, int, Any]) -> None:
            kind, number, value = event
            call = on_token if kind == "token" else on_done
            if call is not None:
                call(number, value)

        return self._call("generate", list(requests), batch_size, on_event=on_event)[0]

    def score(self, sequences: Sequence[list[int]]) -> list[list[float]]:
        return self._call("score", list(sequences))[0]

    def set_adapter(self, name: str | None) -> None:
        self._call("set_adapter", name)

    def memory(self) -> dict[str, int]:
        """Sums over the processes, and `largest_weights`: those of the process that holds most."""
        ranks = self._call("memory")
        total = {key: sum(rank[key] for rank in ranks) for key in ranks[0]}
        return total | {"largest_weights": max(rank["weights"] for rank in ranks)}

    def close(self) -> None:
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def _call(self, method: str, *arguments: object, on_event: Callable[[Any], None] | None = None) -> list[Any]:
        if self._workers is None:
            raise ValueError(f"backend={self.name} has no model yet; call load first")
        try:
            return self._workers.call(method, *arguments, on_event=on_event)
        except BaseException:  # also Ctrl-C: answers would no longer belong to calls
            self.close()
            raise
