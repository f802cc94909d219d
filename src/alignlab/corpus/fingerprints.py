"""What is known of data by the report that `alignlab corpus clean` left beside it; for the record of a run."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


def cleaned(values: Any) -> dict[str, dict[str, Any]]:
    """Fingerprint of the cleaning of each file and folder that a setting names; those without a report are left out.
    Of a mixture, and of packed tokens, those of the files that it was made from.

    `as cleaned` says whether the files still have, or had when they were mixed or packed, the sizes that they were
    written with; their content isn't read.

    Args:
        values: settings: texts, lists, and mappings, whose keys may be places too.
    """
    found = {}
    for place in dict.fromkeys(_texts(values)):
        told = _told(Path(place).expanduser())
        found |= _carried(Path(place).expanduser()) if told is None else {place: told}
    return found


def _texts(values: Any) -> Iterator[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping):
        for key, value in values.items():
            yield from _texts(key)
            yield from _texts(value)
    elif isinstance(values, Iterable):
        for value in values:
            yield from _texts(value)


def _carried(place: Path) -> dict[str, dict[str, Any]]:
    """What `mix` wrote beside a folder `data`, or `pack` beside tokens."""
    try:
        if len(str(place)) > 4096 or not place.exists():
            return {}
        files = [
            place / "index.json",
            *(one.parent / "mix.json" for one in (place, place.parent) if one.name == "data"),
        ]
        file = next(file for file in files if file.is_file())
        told = json.loads(file.read_text(encoding="utf-8"))["corpora"]
        return {str(name): dict(each) for name, each in told.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return {}


def _told(place: Path) -> dict[str, Any] | None:
    try:
        if len(str(place)) > 4096 or not place.exists():
            return None
        folder = next(one for one in (place, *place.absolute().parents) if (one.parent / "report.json").is_file())
        if folder.name != "data":
            return None
        report = json.loads((folder.parent / "report.json").read_text(encoding="utf-8"))
        files = report["files"]
        sizes = {name: file["bytes"] for name, file in files.items() if not name.endswith(".gz")}
        same = all((folder / name).is_file() for name in files)
        same = same and all((folder / name).stat().st_size == size for name, size in sizes.items())
        kept = sum(file["kept"] for file in files.values())
        return {"fingerprint": str(report["fingerprint"]), "documents": int(kept), "as cleaned": same}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return None
