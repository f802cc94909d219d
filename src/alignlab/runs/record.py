"""What every run leaves, however it ends: result.json with versions and revision, the traceback in its log, the table
at its end.
"""

import platform
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from alignlab.corpus import fingerprints
from alignlab.cost.measured import Clock, peak_memory_bytes
from alignlab.files.result import Result
from alignlab.launch import disk
from alignlab.launch.rank_watch import RankDied
from alignlab.launch.signals import Interrupted
from alignlab.runs import plugged
from alignlab.runs.errors import cause

PACKAGES = ("alignlab", "torch", "torchvision", "lightning", "timm", "transformers", "tokenizers", "hydra-core")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    known = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            continue
    return known


def git_revision() -> str | None:
    """Revision of the working tree, with `-dirty` if it has changes; None outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@contextmanager
def recorded(
    result: Result,
    run_dir: Path,
    cfg: DictConfig,
    log: str = "train.log",
    unit: str = "step",
    rank: Callable[[], int] = lambda: 0,
) -> Iterator[None]:
    """Writes result.json on rank zero, and on any rank that fails first; a failure's traceback goes to the log.

    Args:
        cfg: the run's config, which errors are placed by.
        unit: what `result.steps` counts.
        rank: of this process, asked when it matters: Lightning may learn it late.
    Raises:
        ValueError: for what the user can mend.
        Interrupted, KeyboardInterrupt, DiskFull, RankDied: what their names say.
    """
    clock = Clock()
    error: BaseException | None = None
    try:
        if rank() == 0:
            disk.keep_room(run_dir)
            plugged.note(result, run_dir, cfg)
            result.corpora = fingerprints.cleaned(OmegaConf.to_container(cfg).get("data"))
        yield
    except (KeyboardInterrupt, Interrupted) as stop:
        by = stop.name if isinstance(stop, Interrupted) else "Ctrl-C"
        error, result.status = stop, "interrupted"
        result.reason = result.reason or f"{by} at {unit} {result.steps}"
    except (Exception, SystemExit) as failure:
        disk.give_room(run_dir)
        error = _with_what_it_said(disk.explained(cause(failure, cfg), run_dir), run_dir)
        result.status = getattr(error, "status", "failed")
        result.reason = f"{type(error).__name__}: {error}"
        with suppress(OSError), (run_dir / log).open("a", encoding="utf-8", errors="replace") as file:
            file.write("".join(traceback.format_exception(failure)))
    disk.give_room(run_dir)
    result.seconds = clock.seconds()
    result.peak_memory_bytes = max(result.peak_memory_bytes, peak_memory_bytes())
    if (rank() == 0 or isinstance(error, Exception)) and not _failed_before(run_dir, result):
        with suppress(OSError) if error is not None else ExitStack():
            result.write(run_dir)
    if error is not None:
        raise error


def _with_what_it_said(error: BaseException, run_dir: Path) -> BaseException:
    """A rank's death with the reason that it has written itself, if it has."""
    said = Result.read(run_dir) if isinstance(error, RankDied) else None
    return error if said is None else RankDied(f"{error}. It said: {said.reason}")


def _failed_before(run_dir: Path, result: Result) -> bool:
    """Whether another rank has already said why: what this one saw is then only the broken connection."""
    return result.status == "failed" and (run_dir / "result.json").exists()


def show(result: Result, run_dir: Path, log: str = "train.log", unit: str = "steps") -> None:
    """Prints the metrics as a table, and where the run's files are; the same goes to the log."""
    from rich.console import Console
    from rich.table import Table

    table = Table("metric", "value", title=f"{result.status} after {result.steps} {unit}, {result.seconds:.0f} s")
    table.columns[1].justify = "right"
    for name, value in sorted(result.metrics.items()):
        table.add_row(name, f"{value:.4g}")
    files = sorted(file for file in (run_dir / "samples").glob("*") if not file.name.startswith("."))
    with (run_dir / log).open("a", encoding="utf-8", errors="surrogateescape") as log_file:
        for target in (sys.stdout, log_file):
            console = Console(file=target, soft_wrap=True, highlight=False)
            console.print(table)
            console.print(f"run directory  {_short(run_dir)}")
            for file in files:
                console.print(
                    f"picture        {_short(file)}" if file.suffix == ".png" else f"sample         {_short(file)}"
                )


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
