"""What a run does when its disk is full: say so in one line, and still be able to write why."""

import errno
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

FILE = ".room"
ROOM = 128 * 1024  # bytes that are kept for result.json and the end of train.log

_CODES = {
    errno.ENOSPC: "no space is left",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "files may not grow further",
}
# torch's and other writers in C++ lose the error's number.
_WORDS = ("No space left on device", "Disk quota exceeded", "File too large", "iostream error", "file write failed")


class DiskFull(Exception):
    """Nothing more can be written to the run directory."""


def keep_room(directory: Path) -> None:
    """Puts a file there that can be removed when it matters.

    Raises:
        OSError: not even that fits.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / FILE).write_bytes(b"\0" * ROOM)


def give_room(directory: Path) -> None:
    """Removes that file."""
    with suppress(OSError):
        (directory / FILE).unlink(missing_ok=True)


def explained(error: BaseException, directory: Path) -> BaseException:
    """`DiskFull` with cause and remedy if a full disk is behind an error, else the error itself."""
    for each in _chain(error):
        if isinstance(each, OSError) and each.errno in _CODES:
            return DiskFull(_message(_CODES[each.errno], each.filename, directory))
        if isinstance(each, OSError | RuntimeError) and any(words in str(each) for words in _WORDS):
            return DiskFull(_message("a write failed, the disk seems to be full", None, directory))
    return error


def _message(cause: str, file: object, directory: Path) -> str:
    written = f" (writing {file})" if file is not None else ""
    return f"{directory} can't be written to: {cause}{written}. Make room and go on with resume={directory}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
