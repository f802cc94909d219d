"""Files and folders that appear under their final name only when they are complete."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced(file: Path, durable: bool = False) -> Iterator[Path]:
    """A temporary name beside a file; what the block has written there takes the file's place if it ends well.

    Args:
        durable: on disk before it has its name, so that a power cut leaves the old file or the new one.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name.removeprefix('.').removesuffix('.tmp')}.{os.getpid()}.tmp")
    try:
        yield temporary
        if durable:
            sync(temporary)
        os.replace(temporary, file)
    finally:  # a full disk needs the space; links to one file aren't renamed
        temporary.unlink(missing_ok=True)


def write_text(file: Path, text: str, durable: bool = False) -> None:
    """Writes a file: nobody ever sees half of it; `durable` as in `replaced`.

    Names of files that an ASCII locale couldn't read are written as the bytes that they are.
    """
    with replaced(file, durable) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


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


def sync(path: Path, only_names: bool = False) -> None:
    """Has a file, or a folder with all in it, on disk when it returns; a folder's names alone with `only_names`."""
    inside = path.rglob("*") if path.is_dir() and not only_names else ()
    for part in (*inside, path):
        handle = os.open(part, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:  # folders on SMB and FUSE, which have no such thing
            if not (part.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES)):
                raise
        finally:
            os.close(handle)
