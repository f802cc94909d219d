"""The files behind a list of pictures: whether they are there, and whether training and held-out pictures are the
same.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

import numpy as np

from alignlab.data.image_text.picture_list import CaptionedPicture, Pictures

log = logging.getLogger(__name__)
_LACKING = -2  # in place of a size
_BEGINNING = 4096  # bytes of a file's beginning that are compared before all of it is


class Sized(NamedTuple):
    """Pictures with their files' sizes in bytes, so that the disk is asked once for each."""

    pictures: Sequence[CaptionedPicture]
    sizes: np.ndarray  # int64; -1: not asked


def check_files(pictures: Pictures, bad: Callable[[ValueError], None] | None = None, most: int = 500_000) -> Sized:
    """The pictures with the sizes of their files; of more than `most` pictures so many are looked at, evenly spread.

    Raises a ValueError for the first whose file is missing, empty or no file, or tells `bad` of all of them and leaves
    them out.
    """
    number = len(pictures)
    sizes = np.full(number, -1, np.int64)
    for place in range(number) if number <= most else (i * number // most for i in range(most)):
        try:
            sizes[place] = size_of(pictures[place])
        except ValueError as error:
            if bad is None:
                raise
            bad(error)
            sizes[place] = _LACKING
    there = sizes != _LACKING
    return Sized(pictures, sizes) if there.all() else Sized(pictures.where(there), sizes[there])


def size_of(picture: CaptionedPicture) -> int:
    """Bytes of a picture's file. Raises ValueError where it is missing, empty or no file."""
    try:
        file = picture.path.stat()
    except OSError:
        raise ValueError(f"{picture.where}: there is no picture {picture.path}") from None
    if not S_ISREG(file.st_mode):
        raise ValueError(f"{picture.where}: {picture.path} is a folder or a device, not a picture")
    if file.st_size == 0:
        raise ValueError(f"{picture.where}: the picture {picture.path} is empty (0 bytes)")
    return file.st_size


def say_shared(splits: Mapping[str, Sized]) -> int:
    """Warns of held-out pictures that are trained on as well, under the same or another name; returns their number."""
    shared = 0
    for split, held in splits.items():
        doubles = same_files(splits["train"], held) if split != "train" else []
        shared += len(doubles)
        if doubles:
            trained, held_out = doubles[0]
            log.warning(
                "%d of %d pictures of the split %r are training pictures too, so its numbers are too good; the first: "
                "%s is the picture of %s",
                len(doubles),
                len(held.pictures),
                split,
                held_out.where,
                trained.where,
            )
    return shared


def same_files(first: Sized, second: Sized) -> list[tuple[CaptionedPicture, CaptionedPicture]]:
    """Pictures of `second` whose file has the bytes of one of `first`, with that one.

    Only files of equal size are opened.
    """
    by_size: dict[int, list[CaptionedPicture]] = {}
    asked = np.isin(first.sizes, second.sizes) & (first.sizes >= 0)
    for place in np.flatnonzero(asked).tolist():
        by_size.setdefault(int(first.sizes[place]), []).append(first.pictures[place])
    digests: dict[tuple[Path, int | None], bytes] = {}
    same = []
    for place in np.flatnonzero(np.isin(second.sizes, list(by_size))).tolist():
        picture = second.pictures[place]
        candidates = by_size[int(second.sizes[place])]
        for part in (_BEGINNING, None):
            own = _digest(picture.path, part, digests) if candidates else b""
            candidates = [other for other in candidates if _digest(other.path, part, digests) == own]
        if candidates:
            same.append((candidates[0], picture))
    return same


def _digest(path: Path, part: int | None, known: dict[tuple[Path, int | None], bytes]) -> bytes:
    """A hash of a file's first `part` bytes; None: of all."""
    if (path, part) not in known:
        try:
            with path.open("rb") as file:
                known[path, part] = hashlib.blake2b(file.read(part), digest_size=16).digest()
        except OSError:  # whoever decodes it says so
            known[path, part] = str(path).encode()
    return known[path, part]
