"""Records steps of a decode loop as CUDA graphs (torch.cuda.graph), the only part of it that needs a real GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

WARM_UPS = 2  # calls that run as they are: libraries load their kernels and workspaces outside the graph
log = logging.getLogger(__name__)


class Recorder:
    """Makes graphs that share one pool of memory: they run one after the other, and leave nothing in it.

    Where a graph can't be recorded, that is said once, and all steps run as they are.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.graphs = 0
        self.usable = self.streams = False  # streams: whether the device works behind the host
        if device.type == "cuda":
            try:
                self._side, self.streams = torch.cuda.Stream(device), True
                self._pool, self.usable = torch.cuda.graph_pool_handle(), True
            except RuntimeError as error:
                self._give_up(error)

    def warm_up(self, step: Callable[[], None]) -> None:
        """Runs a step on another stream, as torch asks for before a graph is recorded."""
        with torch.cuda.device(self.device):
            current = torch.cuda.current_stream(self.device)
            self._side.wait_stream(current)
            with torch.cuda.stream(self._side):
                step()
            current.wait_stream(self._side)

    def record(self, step: Callable[[], None]) -> Callable[[], None] | None:
        """What replays a step; it has not run yet. None where that failed."""
        try:
            with torch.cuda.device(self.device):
                graph = torch.cuda.CUDAGraph()
                # thread_local: what a loader's thread does with pinned memory meanwhile is no part of it
                with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                    step()
        except RuntimeError as error:
            self._give_up(error)
            return None
        self.graphs += 1
        return graph.replay

    def _give_up(self, error: Exception) -> None:
        self.usable = False
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        log.warning("decoding without CUDA graphs, several times slower for small models: %s", reason)


class Recorded:
    """A step that becomes a graph after some calls. Its tensors must stay where they are, and its result must be left
    in them.

    Args:
        step: enqueues work and never waits for it.
    """

    def __init__(self, step: Callable[[], None], recorder: Recorder) -> None:
        self._step, self._recorder, self._calls = step, recorder, 0
        self._replay: Callable[[], None] | None = None

    def __call__(self) -> None:
        if self._replay is None and self._recorder.usable:
            self._calls += 1
            if self._calls <= WARM_UPS:
                self._recorder.warm_up(self._step)
                return
            self._replay = self._recorder.record(self._step)
        (self._replay or self._step)()
