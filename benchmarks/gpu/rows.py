"""What the parts of `make gpu` share: their two options, and rows of results that are on disk as soon as they are known."""

import argparse
import json
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SPARE = 3.0  # seconds between a part's own deadline and its end by force


class Rows:
    """Appends to `rows.jsonl` in a folder. A row: name, value and unit, or error; anything else beside."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file, self.failed, self.lock = folder / "rows.jsonl", False, threading.Lock()

    def add(self, name: str, value: float | str | None = None, unit: str = "", **more: object) -> None:
        """One row."""
        row = {"name": name, "value": value, "unit": unit, **more}
        self.failed |= "error" in more
        with self.lock, self.file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)

    @contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """What fails inside is a row of this name with the error, and the part goes on."""
        try:
            yield
        except Exception as error:  # whatever it is: the others count
            traceback.print_exc()
            self.add(name, error=f"{type(error).__name__}: {error}".splitlines()[0][:300])


def options(description: str) -> argparse.Namespace:
    """device and folder; `full`: the sizes for a GPU, else the tiny ones that try the same code; `deadline` by time.monotonic."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=600.0, help="what wouldn't be done by then isn't begun")
    found, rest = parser.parse_known_args()
    found.full, found.rest = found.device == "cuda", rest
    found.folder, found.deadline = found.folder.resolve(), time.monotonic() + found.seconds - SPARE
    return found
