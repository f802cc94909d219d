"""Files and folders that appear under their final name only when they are complete."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path


def write_text(file: Path, text: str) -> None:
    """Writes under a temporary name and renames: nobody ever sees half a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, file)
    except OSError:  # a full disk
        temporary.unlink(missing_ok=True)
        raise


def write_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Has `write` fill a folder under a temporary name and renames it; one that is there already is replaced."""
    temporary, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("tmp", "old"))
    for rest in (temporary, old):
        shutil.rmtree(rest, ignore_errors=True)
    temporary.mkdir(parents=True)
    write(temporary)
    if folder.exists():
        os.replace(folder, old)
    os.replace(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)
