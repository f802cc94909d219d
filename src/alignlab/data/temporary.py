"""Temporary folders that go even when their process is killed: the next one that makes such a folder removes them."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

PREFIX, LOCK = "alignlab-", ".alive"


def temporary_folder(kind: str, within: str | None = None) -> tuple[Path, Callable[[], None]]:
    """A new folder (below the system's temporary one, or `within`), and a function that removes it.

    A file in it is locked as long as this process, or one that it has forked, lives. Folders beside it whose lock
    nobody holds are left over from processes that were killed, and are removed.
    """
    place = Path(within or tempfile.gettempdir())
    for old in place.glob(f"{PREFIX}*/{LOCK}"):
        with _free(old) as free:
            if free:
                shutil.rmtree(old.parent, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{kind}-", dir=place))
    lock = os.open(folder / f"{LOCK}-soon", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    (folder / f"{LOCK}-soon").rename(folder / LOCK)  # nobody sees it unlocked

    def remove() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)

    return folder, remove


@contextlib.contextmanager
def _free(lock: Path) -> Iterator[bool]:
    try:
        handle = os.open(lock, os.O_RDWR)
    except OSError:  # gone meanwhile, or somebody else's
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(handle)
