"""What the bytes of a file here are: those of its repository, others, or a pointer of git LFS (130 bytes in place of a
large file, in a clone that was made without LFS).
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from alignlab.hub.remote_file import RemoteFile

State = Literal["ok", "missing", "corrupt", "pointer", "extra"]
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-.*\n)*oid sha256:([0-9a-f]{64})\nsize (\d+)\n"
)


def pointed(file: Path, path: str) -> RemoteFile | None:
    """What a pointer stands for; None where the file isn't one."""
    if file.stat().st_size > 1024:
        return None
    match = _POINTER.fullmatch(file.read_bytes())
    return RemoteFile(path, int(match[2]), match[1].decode()) if match else None


def pointers(clone: Path) -> Iterator[RemoteFile]:
    """All pointers of a clone's working tree."""
    for file in sorted(clone.rglob("*")):
        path = file.relative_to(clone)
        if path.parts[0] != ".git" and file.is_file() and not file.is_symlink():
            stands_for = pointed(file, path.as_posix())
            if stands_for is not None:
                yield stands_for


def state(file: RemoteFile, path: Path) -> State:
    """ok, missing, corrupt, or a pointer of git LFS."""
    if not path.is_file():
        return "missing"
    if path.stat().st_size != file.size:
        return "corrupt" if pointed(path, file.path) is None else "pointer"
    with path.open("rb") as content:
        return "ok" if hashlib.file_digest(content, file.hasher).hexdigest() == file.digest else "corrupt"
