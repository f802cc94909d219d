"""Resident memory of this process: now, and the highest since a point in time."""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor


def resident_bytes() -> int:
    """Bytes of this process that are in memory now (0 where the system does not say)."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """The most that was resident since `reset_peak`, or since the start where that is not possible."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return _status("VmHWM") or (peak if sys.platform == "darwin" else peak * 1024)


def reset_peak() -> None:
    """Start the highest mark anew (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes behind tensors; a storage that several share counts once."""
    sizes = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(sizes.values())


def _status(key: str) -> int:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
