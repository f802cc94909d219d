"""What the machine gives this process, without torch, which a program that only says so needn't import."""

import os
from pathlib import Path


def cores() -> int:
    """Processor cores that this process may use, where the system says so; else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> dict[str, int]:
    """Bytes by Linux's names: `MemTotal`, `MemAvailable`; empty elsewhere."""
    file = Path("/proc/meminfo")
    lines = [line.split(":", 1) for line in file.read_text().splitlines() if ":" in line] if file.exists() else []
    return {name: int(value.split()[0]) * 1024 for name, value in lines if value.endswith(" kB")}
