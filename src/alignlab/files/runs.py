"""Folders of runs: `outputs/<run_name>` stands for the newest run in it, whatever kind of run that is."""

from pathlib import Path

_OF_RUNS = ("export", "checkpoints")
_OF_MODELS = ("config.yaml", "config.json", "adapter_config.json")


def newest_run(place: str | Path, *, holding: str | None = None) -> Path:
    """The newest run in a folder of runs, by the time of what it has learned; any other place as it is.

    Args:
        holding: what the run must hold: `export` or `checkpoints`; None: one of them.
    """
    place = Path(place).expanduser()
    if not place.is_dir() or any((place / name).exists() for name in (*_OF_RUNS, *_OF_MODELS)):
        return place
    wanted = _OF_RUNS if holding is None else (holding,)
    learned = [inside for name in wanted for inside in place.glob(f"*/{name}") if any(inside.iterdir())]
    return max(learned, key=lambda inside: (inside.stat().st_mtime_ns, inside)).parent if learned else place
