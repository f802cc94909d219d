"""Lists of pictures flat on disk, so that millions of them take a few bytes each in memory and are shared by all
workers.

A list is read once into rows of JSON one behind the other, and where each begins. What is small goes into a temporary
folder; the rows of a large list are kept in the user's cache and opened by the next run, as long as the list's file
has neither size nor time of change changed and the rows have their checksum.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from alignlab.data.pictures.members import Member
from alignlab.data.temporary import temporary_folder
from alignlab.files.writing import write_text

log = logging.getLogger(__name__)
KEPT_FROM = 16_000_000  # bytes of a list's file: reading them takes some seconds
_LAYOUT = 2
_written_json = json.JSONEncoder(ensure_ascii=False).encode
_ARRAYS = ("starts", "splits", "hashes")


class CaptionedPicture(NamedTuple):
    """A picture file, its captions, and the place in the list where it comes from."""

    path: Path | Member
    captions: tuple[str, ...]
    where: str  # "annotations=captions.jsonl, line 3", for messages
    name: str  # its path below the folder of the pictures, which decides about the split


class Row(NamedTuple):
    """What a list says in one place."""

    where: str  # "line 3"
    split: str
    name: str  # as the list has it
    captions: list[str]
    member: tuple[str, int, int] | tuple[()] = ()  # of a shard: its name, offset and size of the picture in it


class PictureList:
    """The pictures of one list, in its order.

    Args:
        place: begins messages, such as `annotations=captions.jsonl`.
        picture_dir: where relative names start.
        folder: holds what `write_rows` wrote.
    """

    def __init__(self, place: str, picture_dir: Path, folder: Path) -> None:
        self.place, self.picture_dir, self.folder = place, picture_dir, folder
        names = json.loads((folder / "splits.json").read_text(encoding="utf-8"))
        self.splits: dict[str, np.ndarray] = {}  # numbers of each split's pictures, in the list's order
        codes = np.load(folder / "splits.npy")
        for code, name in enumerate(names):
            self.splits[name] = np.flatnonzero(codes == code).astype(np.int32)
        self._opened: tuple[np.ndarray, BinaryIO] | None = None

    def __getitem__(self, number: int) -> CaptionedPicture:
        starts, rows = self._open()
        start, end = int(starts[number]), int(starts[number + 1])
        # Not mapped into memory: rows that were read would count as this process's.
        name, captions, where, *member = json.loads(os.pread(rows.fileno(), end - start, start))
        path = self.picture_dir / name
        below = _below(self.picture_dir, path)
        if member:
            shard, offset, size = member
            path = Member(self.picture_dir / shard, offset, size, name.removeprefix(f"{shard}/"))
        return CaptionedPicture(path, tuple(captions), f"{self.place}, {where}", below)

    def hashes(self, numbers: np.ndarray) -> np.ndarray:
        """Of the names of some pictures, uint64."""
        return np.load(self.folder / "hashes.npy", mmap_mode="r")[numbers]

    def _open(self) -> tuple[np.ndarray, BinaryIO]:
        if self._opened is None:
            starts = np.load(self.folder / "starts.npy", mmap_mode="r")
            self._opened = starts, (self.folder / "rows").open("rb", buffering=0)
        return self._opened

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_opened": None}


def open_list(
    files: Sequence[Path],
    picture_dir: Path,
    place: str,
    rows: Iterable[Row],
    bad: Callable[[ValueError], None] | None = None,
) -> PictureList:
    """The list of a file (or of several shards), read from `rows` unless the cache has it. `bad` is told,
    by whoever makes them, of rows that are left out: a list without these is another one in the
    cache, and says so again.

    Raises whatever `rows` raises, and ValueError where they hold nothing.
    """
    kept = (
        _kept(files, picture_dir, "" if bad is None else "skipping")
        if sum(file.stat().st_size for file in files if file.is_file()) >= KEPT_FROM
        else None
    )
    if kept is None:
        folder, remove = temporary_folder("pictures")
        try:
            opened = _written(folder, picture_dir, place, rows)
        except BaseException:
            remove()
            raise
        opened.remove = weakref.finalize(opened, remove)
        return opened
    kept.parent.mkdir(parents=True, exist_ok=True)
    with (kept.parent / f"{kept.name}.lock").open("w") as lock:  # the other ranks of this machine wait, and read it
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _sound(kept):
            log.info("%s is read for the first time; the next run finds it in %s", place, kept)
            for old in kept.parent.glob(f"{kept.name.partition('-')[0]}-*"):  # of the same file before it changed
                if old.is_dir():
                    shutil.rmtree(old, ignore_errors=True)
            new = Path(tempfile.mkdtemp(prefix="new-", dir=kept.parent))
            try:
                before = len(getattr(bad, "reasons", ()))
                _written(new, picture_dir, place, rows)
                write_text(new / "skipped.json", json.dumps(getattr(bad, "reasons", [])[before:]))
                write_text(new / "digests.json", json.dumps(_digests(new)))
                new.rename(kept)
            finally:
                shutil.rmtree(new, ignore_errors=True)
        elif bad is not None:
            for reason in json.loads((kept / "skipped.json").read_text(encoding="utf-8")):
                bad(ValueError(reason))
        return PictureList(place, picture_dir, kept)


def _kept(files: Sequence[Path], picture_dir: Path, kind: str) -> Path | None:
    """Where a large list is kept; None where the cache can't be written."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alignlab" / "lists"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if not os.access(cache, os.W_OK):
            raise PermissionError
    except OSError:
        log.warning("%s can't be written: the list %s is read anew by every run", cache, files[0])
        return None
    stats = " ".join(f"{(stat := file.stat()).st_size} {stat.st_mtime_ns}" for file in files)
    names = "\0".join(str(file.resolve()) for file in files)
    states = (f"{names}\0{picture_dir}", f"{stats} {_LAYOUT}{kind}")
    return cache / "-".join(hashlib.blake2b(state.encode(), digest_size=8).hexdigest() for state in states)


def _written(folder: Path, picture_dir: Path, place: str, rows: Iterable[Row]) -> PictureList:
    """Writes rows into a folder, those of one picture joined."""
    starts, hashes, splits, names = array("q", [0]), array("Q"), array("B"), {}
    prefix = f"{picture_dir}/"
    with (folder / "rows").open("wb") as out:
        for row in rows:
            name = row.name if _plain(row.name) else _below(picture_dir, picture_dir / row.name)
            written = _written_json([name, row.captions, row.where, *row.member]).encode()
            starts.append(starts[-1] + out.write(written))
            digest = hashlib.blake2b(name.removeprefix(prefix).encode(), digest_size=8).digest()
            hashes.append(int.from_bytes(digest, "big"))
            splits.append(names.setdefault(row.split, len(names)))
    if not splits:
        raise ValueError(f"{place} lists no picture")
    parts = [np.frombuffer(starts, np.int64), np.frombuffer(splits, np.uint8), np.frombuffer(hashes, np.uint64)]
    if len(np.unique(parts[2])) < len(parts[2]):
        parts = _joined(folder / "rows", *parts)
    for name, part in zip(_ARRAYS, parts, strict=True):
        np.save(folder / f"{name}.npy", part)
    write_text(folder / "splits.json", json.dumps(list(names)))
    return PictureList(place, picture_dir, folder)


def _joined(file: Path, starts: np.ndarray, splits: np.ndarray, hashes: np.ndarray) -> list[np.ndarray]:
    """The rows of each picture of each split as one, where the first of them stood."""
    keys = hashes ^ (splits.astype(np.uint64) << np.uint64(56))
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    members = np.argsort(group, kind="stable")
    ends = np.cumsum(np.bincount(group))
    rows, joined, bounds = np.memmap(file, np.uint8, "r"), file.with_name("joined"), array("q", [0])
    order = np.argsort(first)
    with joined.open("wb") as out:
        for number in order.tolist():
            same = members[(ends[number - 1] if number else 0) : ends[number]].tolist()
            texts = [rows[starts[row] : starts[row + 1]].tobytes() for row in same]
            if len(texts) > 1:
                name, captions, *rest = json.loads(texts[0])
                captions += [caption for text in texts[1:] for caption in json.loads(text)[1]]
                texts = [_written_json([name, captions, *rest]).encode()]
            bounds.append(bounds[-1] + out.write(texts[0]))
    joined.replace(file)
    return [np.frombuffer(bounds, np.int64), splits[first[order]], hashes[first[order]]]


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for file in sorted(folder.iterdir()):
        if file.name != "digests.json":
            with file.open("rb") as content:
                digests[file.name] = hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    return digests


def _sound(folder: Path) -> bool:
    """Whether a kept list is there with its checksums; a damaged one is said."""
    try:
        if not folder.is_dir():
            return False
        if _digests(folder) == json.loads((folder / "digests.json").read_text(encoding="utf-8")):
            return True
    except (OSError, ValueError):
        pass
    log.warning("%s is damaged: the list is read anew", folder)
    return False


def _plain(name: str) -> bool:
    """Whether a name is written as paths are: without empty parts and dots that mean nothing."""
    return (
        not name.startswith(("/", "./")) and "//" not in name and "/./" not in name and not name.endswith(("/", "/."))
    )


def _below(folder: Path, path: Path) -> str:
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


class Pictures(Sequence[CaptionedPicture]):
    """Some pictures of one or several lists: (list, numbers of its pictures) one behind the other."""

    def __init__(self, parts: Sequence[tuple[PictureList, np.ndarray]]) -> None:
        self.parts = list(parts)
        self._ends = np.cumsum([len(numbers) for _, numbers in self.parts], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int | slice) -> "CaptionedPicture | Pictures":
        if isinstance(index, slice):
            chosen = np.zeros(len(self), bool)
            chosen[index] = True
            return self.where(chosen)
        index += len(self) if index < 0 else 0
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = int(np.searchsorted(self._ends, index, side="right"))
        held, numbers = self.parts[part]
        return held[int(numbers[index - (self._ends[part - 1] if part else 0)])]

    def __add__(self, other: "Pictures") -> "Pictures":
        return Pictures([*self.parts, *other.parts])

    def hashes(self) -> np.ndarray:
        """Of all names, uint64."""
        parts = [held.hashes(numbers) for held, numbers in self.parts]
        return np.concatenate(parts) if parts else np.empty(0, np.uint64)

    def where(self, chosen: np.ndarray) -> "Pictures":
        """Those that a mask chooses, in their order."""
        masks = np.split(chosen, self._ends[:-1]) if self.parts else []
        return Pictures([(held, n[mask]) for (held, n), mask in zip(self.parts, masks, strict=True)])

    def spread(self, most: int) -> Iterator[CaptionedPicture]:
        """All of them, or `most` evenly from the first to the last."""
        number = len(self)
        places = range(number) if number <= most else (i * number // most for i in range(most))
        return (self[place] for place in places)
