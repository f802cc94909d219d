"""The files behind a list of pictures: whether they are there, and whether training and held-out pictures are the same."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from stat import S_ISREG

from alignlab.data.annotations import CaptionedPicture

log = logging.getLogger(__name__)
_ENDS = 4096  # bytes of a file's beginning that are compared before all of it is


def check_files(pictures: Sequence[CaptionedPicture]) -> None:
    """Raises a ValueError for the first picture whose file is missing, empty or no file."""
    for picture in pictures:
        try:
            found = picture.path.stat()
        except OSError:
            raise ValueError(f"{picture.where}: there is no picture {picture.path}") from None
        if not S_ISREG(found.st_mode):
            raise ValueError(f"{picture.where}: {picture.path} is a folder or a device, not a picture")
        if found.st_size == 0:
            raise ValueError(f"{picture.where}: the picture {picture.path} is empty (0 bytes)")


def say_shared(splits: Mapping[str, Sequence[CaptionedPicture]]) -> int:
    """Warns of held-out pictures that are trained on as well, under the same or another name; returns their number."""
    shared = 0
    for split, pictures in splits.items():
        found = same_files(splits["train"], pictures) if split != "train" else []
        shared += len(found)
        if found:
            trained, held_out = found[0]
            log.warning(
                "%d of %d pictures of the split %r are training pictures too, so its numbers are too good; the first: %s is the picture of %s",
                len(found),
                len(pictures),
                split,
                held_out.where,
                trained.where,
            )
    return shared


def same_files(
    first: Sequence[CaptionedPicture], second: Sequence[CaptionedPicture]
) -> list[tuple[CaptionedPicture, CaptionedPicture]]:
    """Pictures of `second` whose file has the bytes of one of `first`, with that one. Only files of equal size are opened."""
    sizes = {picture.path.stat().st_size for picture in second}
    by_size: dict[int, list[CaptionedPicture]] = {}
    for picture in first:
        size = picture.path.stat().st_size
        if size in sizes:
            by_size.setdefault(size, []).append(picture)
    digests: dict[tuple[Path, int | None], bytes] = {}
    found = []
    for picture in second:
        candidates = by_size.get(picture.path.stat().st_size, [])
        for part in (_ENDS, None):
            own = _digest(picture.path, part, digests) if candidates else b""
            candidates = [other for other in candidates if _digest(other.path, part, digests) == own]
        if candidates:
            found.append((candidates[0], picture))
    return found


def _digest(path: Path, part: int | None, known: dict[tuple[Path, int | None], bytes]) -> bytes:
    """A hash of a file's first `part` bytes; None: of all."""
    if (path, part) not in known:
        try:
            with path.open("rb") as file:
                known[path, part] = hashlib.blake2b(file.read(part), digest_size=16).digest()
        except OSError:  # whoever decodes it says so
            known[path, part] = str(path).encode()
    return known[path, part]
