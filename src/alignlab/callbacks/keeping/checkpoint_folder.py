"""The folder checkpoints/ of a run: complete files only, the newest and the best of them, and which can be read.

step-00000150.ckpt   a checkpoint; a folder where a sharding strategy wrote it
last.ckpt, best.ckpt links to the newest and the best of these (hard links; symbolic ones to folders)
index.json           step, size and validation metrics of each
"""

import contextlib
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from alignlab.files.checksums import check_sums
from alignlab.files.kinds import checked_archive
from alignlab.files.weights import read_file
from alignlab.files.writing import replaced, sync, write_text

log = logging.getLogger(__name__)

Mode = Literal["min", "max"]


@dataclass(frozen=True)
class Entry:
    """A checkpoint in the index."""

    file: str
    step: int
    bytes: int
    metrics: dict[str, float] = field(default_factory=dict)  # of the validation at this very step, if there was one


def best_first(entries: Iterable[Entry], metric: str, mode: Mode) -> list[Entry]:
    """Those with a finite value of the metric, the best first, of equals the earliest."""
    sign = 1 if mode == "min" else -1
    rated = [entry for entry in entries if math.isfinite(entry.metrics.get(metric, math.nan))]
    return sorted(rated, key=lambda entry: (sign * entry.metrics[metric], entry.step))


class CheckpointFolder:
    """Rotates checkpoints: `keep_last` newest and `keep_best` by `monitor` (-1: all that were validated) stay."""

    def __init__(
        self, path: Path, keep_last: int = 2, keep_best: int = 1, monitor: str | None = None, mode: Mode = "min"
    ) -> None:
        self.path, self.keep_last, self.keep_best = path, keep_last, keep_best
        self.monitor, self.mode = monitor, mode
        self.entries = read_index(path, own_metrics)

    def begin(self, step: int) -> Path:
        """Where to write a checkpoint; nobody takes it for one until `finish`."""
        temporary = self.path / f".step-{step:08d}.ckpt.tmp"
        _remove(temporary)
        self.path.mkdir(parents=True, exist_ok=True)
        return temporary

    def finish(self, step: int, metrics: dict[str, float]) -> None:
        """Gives what was written its name, moves the links, writes the index, removes what is out of turn; in this
        order.

        Checkpoints of later steps are out of turn: the run has gone back.
        """
        temporary, file = self.path / f".step-{step:08d}.ckpt.tmp", self.path / f"step-{step:08d}.ckpt"
        sync(temporary)
        if file.is_dir():
            _remove(file)  # a rename replaces files but no folders
        os.replace(temporary, file)
        entry = Entry(file.name, step, size(file), metrics)
        self.entries = [*(e for e in self.entries if e.step < step), entry]
        self._settle()

    def wanted(self, metrics: dict[str, float]) -> bool:
        """Whether a checkpoint with these metrics would be among the best."""
        if self.monitor not in metrics or self.keep_best == 0:
            return False
        new = Entry("", 1 << 62, 0, metrics)
        ranked = best_first((*self.entries, new), self.monitor, self.mode)
        return new in (ranked if self.keep_best < 0 else ranked[: self.keep_best])

    def forget_after(self, step: int) -> None:
        """Removes half-written files, and checkpoints of steps after `step`, which a resumed run does again."""
        for temporary in self.path.glob(".*.tmp"):
            _remove(temporary)
        if any(entry.step > step for entry in self.entries):
            self.entries = [entry for entry in self.entries if entry.step <= step]
            self._settle()

    def _settle(self) -> None:
        best = best_first(self.entries, self.monitor, self.mode) if self.monitor else []
        kept = {entry.file for entry in self.entries[-self.keep_last :]}
        kept |= {entry.file for entry in (best if self.keep_best < 0 else best[: self.keep_best])}
        self.entries = [entry for entry in self.entries if entry.file in kept]
        for name, chosen in (("last.ckpt", self.entries[-1:]), ("best.ckpt", best[:1] if self.keep_best else [])):
            if chosen:
                _link(self.path / chosen[0].file, self.path / name)
        index = json.dumps([asdict(entry) for entry in self.entries], indent=1) + "\n"
        write_text(self.path / "index.json", index, durable=True)
        sync(self.path, only_names=True)
        for file in self.path.glob("step-*.ckpt"):
            if file.name not in kept:
                _remove(file)


def trained(run_dir: Path) -> Path | None:
    """The checkpoint that a run's weights are read from: checkpoints/best.ckpt, or last.ckpt where there is no best.

    A damaged one gives way to the newest that is sound, which is said; if none is, it is the first after all.
    """
    folder = run_dir / "checkpoints"
    linked = [file for name in ("best", "last") if (file := folder / f"{name}.ckpt").exists()]
    complaints = []
    for file in (*linked[:1], *(folder / entry.file for entry in reversed(read_index(folder))), *linked[1:]):
        if (complaint := damage(file)) is None:
            if complaints:
                log.warning("%s: taking the weights of %s instead", "; ".join(complaints), file.name)
            return file
        complaints.append(f"{file} {complaint}")
    return linked[0] if linked else None


def read_index(path: Path, metrics_of: Callable[[Path], dict[str, float]] = lambda _: {}) -> list[Entry]:
    """The checkpoints of a folder that are there, oldest first; also those that an index lost in a crash doesn't name.

    Args:
        metrics_of: finds the metrics of these.
    """
    known: dict[str, Entry] = {}
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        rows = json.loads((path / "index.json").read_text(encoding="utf-8"))
        known = {row["file"]: Entry(**row) for row in rows if isinstance(row["metrics"], dict)}
    files = [file for file in path.glob("step-*.ckpt") if file.stem[5:].isdecimal()]
    entries = [known.get(f.name) or Entry(f.name, int(f.stem[5:]), size(f), metrics_of(f)) for f in files]
    return sorted(entries, key=lambda entry: entry.step)


def index_is_lost(path: Path) -> bool:
    """Whether a folder has checkpoints and no index of them that can be read."""
    try:
        return not isinstance(json.loads((path / "index.json").read_text(encoding="utf-8")), list)
    except (OSError, ValueError, RecursionError):
        return any(path.glob("step-*.ckpt"))


def own_metrics(checkpoint: Path) -> dict[str, float]:
    """The metrics of a validation at a checkpoint's very step, as it knows them itself; none where it can't be read.

    Checkpoints of before know their run's latest values, whatever the step: of equals the earliest counts.
    """
    parts = ("meta.pt", "checkpoint/mp_rank_00_model_states.pt")  # of the sharding strategies
    files = [checkpoint / part for part in parts] if checkpoint.is_dir() else [checkpoint]
    for file in files:
        with contextlib.suppress(OSError, ValueError):
            content = read_file(file, "resume") if file.exists() else {}
            metrics = content.get("validated", content.get("metrics", {}))
            return {name: float(value) for name, value in metrics.items() if name.startswith("val/")}
    return {}


def newest_readable(path: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that can be read, and a line about each that can't; None where there is no checkpoint at
    all.

    Files are read once and compared with their check sums, folders by size.

    Raises:
        ValueError: there are checkpoints, but none can be read.
    """
    candidates = [(path / entry.file, entry.bytes) for entry in reversed(read_index(path))]
    if not candidates and (path / "last.ckpt").exists():
        candidates = [(path / "last.ckpt", size(path / "last.ckpt"))]
    complaints = []
    for file, expected in candidates:
        complaint = damage(file, expected)
        if complaint is None:
            return file, complaints
        complaints.append(f"{file.name} {complaint}")
    if complaints:
        raise ValueError(f"resume: no checkpoint in {path} can be read ({'; '.join(complaints)})")
    return None, []


def damage(file: Path, expected_bytes: int | None = None) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        actual = size(file)
        if expected_bytes is not None and actual != expected_bytes:
            return f"is cut off: {actual} of {expected_bytes} bytes"
        if file.is_file():
            _, broken = checked_archive(file)
            return f"is damaged in {broken}" if broken else None
        check_sums(file, "")
        return None if actual else "is empty"
    except (OSError, ValueError) as error:
        return f"can't be read ({error})"


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) if path.is_dir() else path.stat().st_size


def _link(target: Path, name: Path) -> None:
    with replaced(name) as temporary:
        temporary.unlink(missing_ok=True)
        if target.is_dir():
            temporary.symlink_to(target.name)
        else:
            try:
                os.link(target, temporary)
            except OSError:  # a file system without hard links
                try:
                    temporary.symlink_to(target.name)
                except OSError:  # exFAT, SMB: nor symbolic ones
                    shutil.copyfile(target, temporary)
                    sync(temporary)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
