"""Memory that is there: of a GPU, or of this process's machine and container."""

import sys
from pathlib import Path

import torch

from alignlab.distributed.machine import memory

_GROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current")


def free_bytes(device: torch.device) -> int | None:
    """Bytes that a process may still take on a device; None where nobody says."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu" or sys.platform != "linux":
        return None
    free = memory()["MemAvailable"]
    try:
        most, taken = (Path(file).read_text().strip() for file in _GROUPS)
        return free if most == "max" else min(free, max(int(most) - int(taken), 0))
    except (OSError, ValueError):
        return free


def held_bytes(device: torch.device) -> int:
    """Bytes that this process has now: allocated on a GPU, else resident; 0 where nobody says."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if sys.platform != "linux":
        return 0
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS")), 0)
