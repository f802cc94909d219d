"""What a run does when its disk is full: say so in one line, and still be able to write why."""

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

FILE = ".room"
ROOM = 128 * 1024  # bytes that are kept for result.json and the end of train.log

_CODES = {
    errno.ENOSPC: "no space is left",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "files may not grow further",
    errno.EIO: "the disk, or the network to it, reports an error (EIO)",
    errno.EROFS: "it can only be read",
    errno.ESTALE: "the network's file system has lost it (ESTALE)",
}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Writers in C++ and Rust (torch, safetensors, tokenizers) raise errors of their own around the system's words.
_WORDS = {os.strerror(code): code for code in _CODES}
_LOST = ("iostream error", "file write failed")  # torch's, without the reason


class DiskFull(Exception):
    """Nothing more can be written to the run directory: no room, or a disk that fails."""


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
    """`DiskFull` with cause and remedy if a disk that takes no more is behind an error, else the error itself."""
    for each in _chain(error):
        code = each.errno if isinstance(each, OSError) and each.errno in _CODES else None
        if code is None and not isinstance(each, OSError):
            code = next((code for words, code in _WORDS.items() if words in str(each)), None)
        if code is not None:
            return DiskFull(_message(code, getattr(each, "filename", None), directory))
        if any(words in str(each) for words in _LOST):
            return DiskFull(_message(None, None, directory))
    return error


def _message(code: int | None, file: object, directory: Path) -> str:
    cause = "a write failed, the disk is full or faulty" if code is None else _CODES[code]
    if file is None and code in _FULL and _output_is_full(directory):
        return f"standard output can't be written to: {cause}"
    written = f" (writing {file})" if file is not None else ""
    ways = "Make room" if code is None or code in _FULL else "Look after the disk"
    on = f"go on with resume={directory}" if (directory / "config.yaml").is_file() else "start again"
    return f"{directory} can't be written to: {cause}{written}. {ways} and {on}"


def _output_is_full(directory: Path) -> bool:
    """Whether standard output or error goes to a full device, another one than the directory's."""
    for number in (1, 2):
        with suppress(OSError):
            stat = os.fstat(number)
            if stat.st_rdev == os.makedev(1, 7):  # /dev/full
                return True
            space = os.fstatvfs(number)
            if S_ISREG(stat.st_mode) and stat.st_dev != directory.stat().st_dev and space.f_bavail == 0:
                return True
    return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
