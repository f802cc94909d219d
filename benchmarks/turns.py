"""Sides of a benchmark that are processes of their own: each makes one update when it is told to and says how long each phase took.

On a line "go" of standard input a worker makes an update; `BEFORE {...}` (bytes held before any net was built) and `REPORT {...}` come on standard output.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from measuring import EXACT_MEMORY, resident_bytes, wait

Report = dict[str, float]  # seconds of the update and of its phases, and the peak in bytes


class Turns:
    """The worker's end of the conversation: waits for its turn, measures phases, reports."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.phases: dict[str, float] = {}
        self.started = 0.0
        (torch.randn(512, 512) @ torch.randn(512, 512)).sum()  # what the first product allocates is nobody's net
        print("BEFORE " + json.dumps({"resident": resident_bytes()}), flush=True)

    def wait(self) -> None:
        """Block until it is this side's turn."""
        if sys.stdin.readline().strip() != "go":
            os._exit(0)
        self.phases, self.started = {}, time.perf_counter()

    def report(self) -> None:
        """Say how long the update took."""
        wait(self.device)
        whole = time.perf_counter() - self.started
        peak = torch.cuda.max_memory_allocated() if self.device == "cuda" else resident_bytes("VmHWM")
        print("REPORT " + json.dumps({"update": whole, "peak": peak, **self.phases}), flush=True)

    def timed(self, name: str, function: Callable) -> Callable:
        """The function, its time added to a phase."""

        def wrapper(*args, **kwargs):
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                wait(self.device)
                self.phases[name] = self.phases.get(name, 0.0) + time.perf_counter() - began

        return wrapper


class Worker:
    """The parent's end.

    Args:
        program: name of the file beside this one that is started.
        side: its first argument.
        exact_memory: whether freed memory goes back at once (`EXACT_MEMORY`).
        options: the others, as `--name value`.
    """

    def __init__(self, program: str, side: str, exact_memory: bool = False, **options: object) -> None:
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(f"{program}.py")), side, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("SHOW") else subprocess.DEVNULL,
            text=True,
            env=os.environ | (EXACT_MEMORY if exact_memory else {}),
        )
        self.before = self._read("BEFORE")["resident"]

    def turn(self) -> Report:
        """One update."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self._read("REPORT")

    def close(self) -> None:
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()

    def _read(self, mark: str) -> Report:
        for line in self.process.stdout:
            if line.startswith(mark + " "):
                return json.loads(line[len(mark) + 1 :])
        raise RuntimeError(f"the worker ended (status {self.process.wait()}); SHOW=1 shows why")


def in_turn(workers: Mapping[str, Worker], rounds: int) -> dict[str, list[Report]]:
    """Reports of each side, turn by turn, after a turn that doesn't count."""
    reports: dict[str, list[Report]] = {side: [] for side in workers}
    for number in range(rounds + 1):
        for side, worker in workers.items():
            report = worker.turn()
            if number:
                reports[side].append(report)
            print(number, side, {k: round(v, 2) for k, v in report.items() if k != "peak"}, flush=True)
    return reports


def peaks(start: Callable[[str], Worker], sides: Iterable[str], device: str) -> dict[str, int]:
    """Peak of each side's second update above the start of its process, bytes; on a GPU what torch had allocated."""
    found = {}
    for side in sides:
        worker = start(side)
        worker.turn()
        found[side] = int(worker.turn()["peak"] - (worker.before if device == "cpu" else 0))
        worker.close()
        print("memory", side, found[side] / 2**20, flush=True)
    return found


def medians(reports: list[Report]) -> Report:
    """Of each number."""
    return {key: statistics.median(report.get(key, 0.0) for report in reports) for key in reports[0]}


def rate(device: str) -> float:
    """Multiplications with additions x 2 a second in large float32 products: the floors' measure."""
    side = 1024 if device == "cpu" else 8192
    a, best = torch.randn(side, side, device=device), 0.0
    for _ in range(20):
        wait(device)
        began = time.perf_counter()
        a @ a
        wait(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - began))
    return best


def table(middle: Mapping[str, Report], peak: Mapping[str, int], floors: Mapping[str, Report], speed: float) -> str:
    """Rows of all sides against the first one, then floors: FLOPs of phases at `speed` a second."""
    first = next(iter(middle))
    rows = [
        f"| {side} | {m['update']:.2f} | {middle[first]['update'] / m['update']:.2f} | {m['generate']:.2f} | {m['score']:.2f} | {m['improve']:.2f} "
        f"| {peak[side] / 2**20:.0f} | {peak[side] / peak[first]:.2f} |"
        for side, m in middle.items()
    ]
    for name, flops in floors.items():
        s = {phase: count / speed for phase, count in flops.items()}
        whole = sum(s.values())
        ratio = middle[first]["update"] / whole
        rows.append(
            f"| {name} | {whole:.2f} | {ratio:.2f} | {s['generate']:.2f} | {s['score']:.2f} | {s['improve']:.2f} | | |"
        )
    head = "| side | update | speed ratio | generate | score | improve | peak MiB | memory ratio |\n|---|---|---|---|---|---|---|---|\n"
    return head + "\n".join(rows)
