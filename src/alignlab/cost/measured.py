"""What a process has taken: time, and memory at its most."""

import resource
import sys
import time


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._started


def peak_memory_bytes() -> int:
    """The most that was allocated on the GPU, or the most resident memory of this process where there is none."""
    torch = sys.modules.get("torch")  # a chain of runs, or a config error, is recorded without it
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
