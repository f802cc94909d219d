"""Check sums of what is written, beside it: `sha256sum -c SHA256SUMS` checks a folder without this package.

SHA-256 because the standard library has it and processors have instructions for it: twice as fast as BLAKE2b where it
was measured (docs/checkpoints.md). A file is read once a process for it, however many doors it goes through.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

FILE = "SHA256SUMS"
WEIGHTS = (".safetensors", ".bin", ".gguf")
_SAMPLES, _SAMPLE = 64, 4096  # of a fingerprint: places in a file, bytes at each


def write_sums(folder: Path, files: Iterable[Path] | None = None, name: str = FILE) -> None:
    """Writes the check sums of a folder's files, not of those in folders within it, or of some files."""
    parts = sorted(files if files is not None else (f for f in folder.iterdir() if f.is_file() and f.name != FILE))
    lines = [f"{sha256(file)}  {file.relative_to(folder)}\n" for file in parts]
    (folder / name).write_text("".join(lines), encoding="utf-8")


def check_sums(folder: str | Path, what: str, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Compares a folder's files with their check sums, if it has any.

    Args:
        what: the key that the folder was given to, for messages; "" for none.
        wanted: which files, by name.

    Raises:
        ValueError, one line: a file isn't as it was written, or isn't there any more.
    """
    for listed in sorted(Path(folder).glob(f"{FILE}*")) if Path(folder).is_dir() else ():
        _compare(listed, what, wanted)


def write_beside(file: Path) -> None:
    """Writes the check sum of one file into `<file>.sha256`."""
    write_sums(file.parent, [file], f"{file.name}.sha256")


def check_beside(file: Path, what: str) -> None:
    """Compares a file with `<file>.sha256`, if that is there; raises as `check_sums`."""
    if (listed := file.with_name(f"{file.name}.sha256")).is_file():
        _compare(listed, what, file.name.__eq__)


def _compare(listed: Path, what: str, wanted: Callable[[str], bool]) -> None:
    for line in listed.read_text(encoding="utf-8", errors="replace").split("\n"):
        digest, _, name = line.partition("  ")
        if not name or not wanted(name) or ".." in Path(name).parts:
            continue
        file, where = listed.parent / name, f"{what}: " if what else ""
        if not file.is_file():
            raise ValueError(f"{where}{file} is missing, which {listed.name} names; write or fetch the folder again")
        if _known_digest(str(file), *_stamp(file)) != digest:
            raise ValueError(
                f"{where}{file} is damaged: its bytes aren't those that were written ({listed.name}); write or "
                f"fetch it again, or remove {listed.name} if you have changed it on purpose"
            )


def small(name: str) -> bool:
    """Whether a file holds no weights, by its name."""
    return not name.endswith(WEIGHTS)


def fingerprint(folder: Path) -> str | None:
    """Tells a model's weights apart by their sizes, headers and samples; None where there are none.

    Seconds for any size: it is to notice another training's weights, not a flipped bit.
    """
    files = sorted(file for file in folder.glob("*") if file.name.endswith(WEIGHTS))
    return _samples(tuple((str(file), *_stamp(file)) for file in files)) if files else None


@lru_cache(maxsize=64)
def _samples(files: tuple[tuple[str, int, int, int], ...]) -> str:
    hasher = hashlib.blake2b(digest_size=16)
    for path, size, *_ in files:
        hasher.update(f"{Path(path).name} {size}\n".encode())
        with open(path, "rb") as file:
            for place in range(_SAMPLES):
                file.seek(max(0, size - _SAMPLE) * place // (_SAMPLES - 1))
                hasher.update(file.read(_SAMPLE))
    return hasher.hexdigest()


def _stamp(file: Path) -> tuple[int, int, int]:
    stat = os.stat(file)
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


@lru_cache(maxsize=4096)
def _known_digest(file: str, *_: int) -> str:
    return sha256(Path(file))


def sha256(file: Path) -> str:
    """Of a file's bytes."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
