"""Where runs lie: directories, folders of such, patterns."""

import glob
from collections.abc import Callable, Sequence
from pathlib import Path

from alignlab.scaling.reading.tables import SUFFIXES

DEPTH = 3  # folders below a place in which a run may lie


def expanded(place: str) -> list[Path]:
    """The paths that a word of the command line means; of a pattern folders alone, where there are some.

    Raises:
        ValueError: there is none.
    """
    path = Path(place).expanduser()
    if path.exists():
        return [path]
    there = [Path(each) for each in sorted(glob.glob(str(path))) if not Path(each).name.startswith(".")]
    if not there:
        raise ValueError(f"there is no {place}")
    return [each for each in there if each.is_dir()] or [each for each in there if each.suffix in SUFFIXES]


def runs_below(folder: Path, is_run: Callable[[Path], bool], depth: int = DEPTH) -> list[Path]:
    """A run itself, or those in it."""
    if is_run(folder):
        return [folder]
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [run for path in inside for run in runs_below(path, is_run, depth - 1)] if depth else []


def runs_with(places: Sequence[str], is_run: Callable[[Path], bool]) -> list[Path]:
    """The runs of several places, each once.

    Raises:
        ValueError: there is none.
    """
    found = [path for place in places for path in expanded(place) if path.is_dir()]
    runs = list(dict.fromkeys(run for path in found for run in runs_below(path, is_run)))
    if not runs:
        raise ValueError(f"no run in {', '.join(map(str, places))}")
    return runs
