"""Tar shards in the manner of webdataset: members of one name before the first dot, one behind the other, are a sample.

Their pictures aren't read one after the other: a shard is gone through once, header by header, and from then on a
picture is the bytes at a place. So samples are rows of a list like any others: in any order, by any number of readers,
and exact when a run is resumed.
"""

import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from alignlab.data.image_text.list_values import CAPTION_KEYS
from alignlab.data.pictures.members import PICTURE_SUFFIXES, Member
from alignlab.files.text import kind_of, parse_json

Bad = Callable[[ValueError], None] | None
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
TEXTS = (".txt", ".text", ".caption")
_TAIL = 1 << 20  # bytes behind the last member that are looked at
_MOST_TEXT = 16_000_000  # bytes of a text that a sample may have


class Sample(NamedTuple):
    """What lies in a shard under one key."""

    where: str  # "annotations=shards/00000.tar, sample 000012"
    key: str
    pictures: list[Member]  # in the shard's order
    row: dict[str, Any]  # what its .json says, with the text of its .txt as `caption` where that says none
    suffixes: tuple[str, ...]
    members: tuple[Member, ...] = ()  # all of them, texts too


def are_shards(place: str) -> bool:
    """Whether a list's name stands for shards: a .tar file, a pattern of such, or a folder that holds some."""
    path = Path(place).expanduser()
    return place.endswith((".tar", ".tar.gz", ".tgz")) or (path.is_dir() and any(path.glob("*.tar")))


def shards_of(place: str, key: str) -> list[Path]:
    """The shards of a folder, of a name, or of a pattern with {000..012}, {a,b}, * and ?; sorted, each once.

    Raises:
        ValueError: there is none, or one of those that braces name.
    """
    path = Path(place).expanduser()
    if path.is_dir():
        return sorted(path.glob("*.tar"))
    files: list[Path] = []
    for name in _spelled_out(str(path)):
        if re.search(r"[*?\[]", name):
            one = Path(name)
            fixed = next((parent for parent in one.parents if not re.search(r"[*?\[]", str(parent))), Path())
            files += sorted(fixed.glob(str(one.relative_to(fixed))))
        elif Path(name).is_file():
            files.append(Path(name))
        else:
            raise ValueError(f"{key}={place}: there is no shard {name}")
    if not files:
        raise ValueError(f"{key}={place}: there is no shard of that name")
    return list(dict.fromkeys(files))


def samples(shard: Path, key: str, bad: Bad = None) -> Iterator[Sample]:
    """The samples of a shard, in its order.

    Args:
        key: what gave the shard, for messages.
        bad: is told what is wrong, with a sample or with the rest of a shard, which is then left out; None: it is
            raised.

    Raises:
        ValueError: naming shard and sample: no uncompressed tar file, one that ends too early, a text that can't be
            read.
    """
    place, kept, last = f"{key}={shard}", [], None
    try:
        size = shard.stat().st_size
        with tarfile.open(shard, "r:") as tar, shard.open("rb") as content:
            for member in tar:
                tar.members = []  # it would keep them all
                if not member.isreg():
                    continue
                name = PurePosixPath(member.name)
                stem, _, suffix = name.name.partition(".")
                sample = str(name.with_name(stem)) if stem else ""
                if sample != last and kept:
                    yield from _made(place, last, kept, shard, content, bad)
                    kept = []
                last = sample
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError(f"{member.name} goes beyond the file's end")
                if stem:
                    kept.append((f".{suffix}".lower(), member.name, member.offset_data, member.size))
            content.seek(tar.offset)
            _refuse_more(content.read(_TAIL))
        if kept:
            yield from _made(place, last, kept, shard, content=None, bad=bad)
    except (tarfile.TarError, OSError) as error:
        packed = " (unpack it: compressed shards have no places)" if shard.suffix in (".gz", ".tgz") else ""
        wrong = ValueError(f"{place}: the shard can't be read{f' behind {last}' if last else ''}: {error}{packed}")
        if bad is None:
            raise wrong from None
        if kept:
            yield from _made(place, last, kept, shard, content=None, bad=bad)
        bad(wrong)


def _refuse_more(rest: bytes) -> None:
    """Raises ReadError for what `tarfile` takes for an ordinary end: a file cut between two members, or more behind the
    mark of the end.
    """
    if not rest:
        raise tarfile.ReadError("it ends without its mark of the end; is it cut?")
    if rest.strip(b"\0"):
        raise tarfile.ReadError("what follows is no part of a tar file; are these several, one behind the other?")


def _made(place: str, key: str, kept: list, shard: Path, content: Any, bad: Bad) -> Iterator[Sample]:
    where = f"{place}, sample {key}"
    try:
        if content is None or content.closed:
            with shard.open("rb") as again:
                yield _sample(where, key, kept, shard, again)
        else:
            yield _sample(where, key, kept, shard, content)
    except ValueError as error:
        if bad is None:
            raise
        bad(error)


def _sample(where: str, key: str, kept: list, shard: Path, content: Any) -> Sample:
    pictures, row, texts = [], {}, []
    for suffix, name, offset, size in kept:
        if PurePosixPath(suffix).suffix in PICTURE_SUFFIXES or suffix in PICTURE_SUFFIXES:
            pictures.append(Member(shard, offset, size, name))
        elif suffix == ".json" or suffix in TEXTS:
            if size > _MOST_TEXT:
                raise ValueError(f"{where}: {name} has {size} bytes; texts have at most {_MOST_TEXT}")
            content.seek(offset)
            text = _text(content.read(size), suffix, where)
            if suffix == ".json":
                row |= _object(text, where)
            else:
                texts.append(text.strip())
    if texts and not any(name.strip().lower() in CAPTION_KEYS for name in row):
        row["caption"] = texts[0]
    members = tuple(Member(shard, offset, size, name) for _, name, offset, size in kept)
    return Sample(where, key, pictures, row, tuple(suffix for suffix, *_ in kept), members)


def _text(written: bytes, suffix: str, where: str) -> str:
    try:
        return written.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: its {suffix} is no UTF-8 (byte 0x{written[error.start]:02x})") from None


def _object(text: str, where: str) -> dict[str, Any]:
    said = parse_json(text, f"{where}, its .json")
    if not isinstance(said, dict):
        raise ValueError(f"{where}: its .json must hold an object with keys, not {kind_of(said)}")
    return said


def _spelled_out(pattern: str) -> list[str]:
    """{08..11} and {a,b} as the names that they stand for."""
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    if bounds := _RANGE.fullmatch(match[1]):
        first, end = bounds.groups()
        parts = [f"{number:0{len(first)}d}" for number in range(int(first), int(end) + 1)]
    else:
        parts = match[1].split(",")
    return [name for part in parts for name in _spelled_out(pattern[: match.start()] + part + pattern[match.end() :])]
