"""A file of a repository, as the hub's tree describes it, and what makes its bytes right."""

import hashlib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True)
class RemoteFile:
    """A path with the size and hash that the bytes must have.

    Args:
        path: relative, with `/`.
        size: bytes.
        digest: 64 hexadecimal digits are SHA-256 (of files in LFS), 40 git's SHA-1 of a blob.
    """

    path: str
    size: int
    digest: str

    def hasher(self) -> "hashlib._Hash":
        """What the bytes, from the first on, are to be fed to; its `hexdigest()` must then equal `digest`."""
        if len(self.digest) == 64:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)


def check_paths(files: Iterable[RemoteFile], repo: str) -> None:
    """Raises ValueError for a path that would leave its folder, or that another one would overwrite where case is not
    told apart.
    """
    seen: dict[str, str] = {}
    for file in files:
        parts = PurePosixPath(file.path).parts
        bad = not parts or file.path.startswith("/") or any(p in ("..", ".", ".git") for p in file.path.split("/"))
        if bad or "\\" in file.path or ":" in parts[0] or any(unicodedata.category(c) == "Cc" for c in file.path):
            raise ValueError(f"{repo} has a file called {file.path!r}: refused, it could be written anywhere")
        key = unicodedata.normalize("NFC", file.path).casefold()
        if key in seen:
            raise ValueError(
                f"{repo} has {seen[key]!r} and {file.path!r}: refused, some file systems take them for one"
            )
        seen[key] = file.path
