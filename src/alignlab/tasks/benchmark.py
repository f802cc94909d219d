"""The same prompts over a list of backends, each in a process of its own, as a table, a CSV file and a plot."""

import re
import shlex
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from alignlab.cost.roofline import read_bandwidth
from alignlab.files.result import Result
from alignlab.tasks.benchmark_report import plot, print_tables, write_csv
from alignlab.tasks.job import Job


class Benchmark:
    """Starts `task=measure` for every backend, one after the other; the first one that works is the yardstick.

    Args:
        backends: an entry is a backend's name and any further overrides: `int8`, or `compiled dtype=bfloat16`, or
            `offload backend.resident=0.25`.
        batch_sizes, prompt_tokens, new_tokens, repeats: see `Measure`.
        minutes: a backend that takes longer is ended, and its row says so.
    """

    needs = "programs"

    def __init__(
        self,
        backends: Sequence[str],
        batch_sizes: Sequence[int] = (1, 8, 32),
        prompt_tokens: int = 64,
        new_tokens: int = 32,
        repeats: int = 3,
        minutes: float = 30.0,
    ) -> None:
        if not backends:
            raise ValueError("backends is empty; name some, e.g. backends=[transformers,compiled]")
        if len(set(backends)) < len(backends):
            raise ValueError(f"backends={list(backends)} names one twice")
        self.backends, self.minutes, self.batch_sizes = list(backends), minutes, list(batch_sizes)
        self.settings = [
            "task=measure",
            f"task.batch_sizes=[{','.join(map(str, batch_sizes))}]",
            f"task.prompt_tokens={prompt_tokens}",
            f"task.new_tokens={new_tokens}",
            f"task.repeats={repeats}",
        ]

    def run(self, subject: None, job: Job) -> dict[str, float]:
        done = job.predictions.rows
        bandwidth = next((row["bandwidth_bytes_per_second"] for row in done.values()), None) or read_bandwidth()
        job.console.print(f"memory bandwidth {bandwidth / 1e9:.1f} GB/s")
        for entry in self.backends:
            if entry not in done:
                job.console.print(f"{entry} ...", end=" ")
                row = self.row(entry, job, bandwidth)
                job.predictions.add(row)
                job.console.print(
                    row["status"] if row["error"] is None else f"{row['status']}: {row['error']}", markup=False
                )
            rows = [done[name] for name in self.backends if name in done]
            write_csv(rows, job.run_dir / "benchmark.csv")
        rows = job.rows(self.backends)
        print_tables(rows, self.batch_sizes, job)
        plot(rows, self.batch_sizes, bandwidth, job.run_dir / "samples" / "benchmark.png")
        counts = {status: sum(row["status"] == status for row in rows) for status in ("ok", "skipped", "failed")}
        return {"measured": float(counts["ok"]), "skipped": float(counts["skipped"]), "failed": float(counts["failed"])}

    def row(self, entry: str, job: Job, bandwidth: float) -> dict:
        """Measures one backend in a process of its own, whatever becomes of it."""
        folder = job.run_dir / "backends" / re.sub(r"[^\w.=-]+", "_", entry)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("config.yaml", "result.json", "predictions.jsonl"):  # of an attempt before
            (folder / name).unlink(missing_ok=True)
        name, *overrides = shlex.split(entry)
        settings = [f"backend={name}", *self.settings, f"task.bandwidth={bandwidth:.0f}", *job.settings, *overrides]
        yardstick = self.yardstick(job)
        if yardstick is not None:
            settings.append(f"task.yardstick='{yardstick}'")
        code = self.start([*job.program, *settings, f"output='{folder}'"], folder / "output.txt")
        status, reason, metrics = _result(folder, code, self.minutes)
        row = {"id": entry, "backend": entry, "status": status, "error": reason, **metrics}
        return {"bandwidth_bytes_per_second": bandwidth, **row}

    def yardstick(self, job: Job) -> Path | None:
        """What the first backend that worked has written for the others to compare with."""
        for entry in self.backends:
            if job.predictions.rows.get(entry, {}).get("status") == "ok":
                file = job.run_dir / "backends" / re.sub(r"[^\w.=-]+", "_", entry) / "agreement.json"
                return file.resolve() if file.exists() else None
        return None

    def start(self, command: list[str], output: Path) -> int | None:
        """Exit code of a program, negative for a signal; None if it was ended for taking too long."""
        with (
            output.open("w") as file,
            subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL) as child,
        ):
            try:
                return child.wait(60 * self.minutes)
            except subprocess.TimeoutExpired:
                child.kill()
                return None
            except BaseException:  # whatever ends this program ends the other too
                child.send_signal(signal.SIGINT)
                raise


def _result(folder: Path, code: int | None, minutes: float) -> tuple[str, str | None, dict[str, float]]:
    """Status, reason and numbers of a measurement that has ended."""
    if code is None:
        return "failed", f"took longer than minutes={minutes:g}", {}
    result = Result.read(folder)
    if code == 0 and result is not None and result.status == "ok":
        return "ok", None, result.metrics
    if code < 0:
        return "failed", f"killed by {signal.Signals(-code).name}; see {folder / 'output.txt'}", {}
    reason = ((result and result.reason) or _last_line(folder / "output.txt") or f"ended with code {code}").strip()
    kind, _, text = reason.partition(": ")
    text = text if kind in ("ValueError", "Unavailable") else reason
    skipped = kind == "Unavailable" or "pip install 'alignlab[" in text
    return ("skipped" if skipped else "failed"), " ".join(text.split()), {}


def _last_line(file: Path) -> str:
    lines = [line for line in file.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or [""])[-1]
