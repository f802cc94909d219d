"""What a run is recorded with besides its numbers: versions, revision; and the table at its end."""

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from alignlab.files.result import Result

PACKAGES = ("alignlab", "torch", "torchvision", "lightning", "timm", "transformers", "tokenizers", "hydra-core")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


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


def show(result: Result, run_dir: Path, log: str = "train.log", unit: str = "steps") -> None:
    """Prints the metrics as a table, and where the run's files are; the same goes to the log."""
    from rich.console import Console
    from rich.table import Table

    table = Table("metric", "value", title=f"{result.status} after {result.steps} {unit}, {result.seconds:.0f} s")
    table.columns[1].justify = "right"
    for name, value in sorted(result.metrics.items()):
        table.add_row(name, f"{value:.4g}")
    files = sorted(file for file in (run_dir / "samples").glob("*") if not file.name.startswith("."))
    with (run_dir / log).open("a", encoding="utf-8") as log_file:
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
