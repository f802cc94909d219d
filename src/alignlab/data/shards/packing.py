"""Writes lists of pictures, with captions, questions or labels, as tar shards that webdataset reads too."""

import io
import json
import logging
import random
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from alignlab.data.image_text.picture_cache import read_picture
from alignlab.data.pictures.members import PICTURE_SUFFIXES, Member
from alignlab.data.recipes.pictures import WHOLE
from alignlab.data.shards.hub_rows import Held
from alignlab.files.writing import replaced

log = logging.getLogger(__name__)


class Packed(NamedTuple):
    """One sample before it is written."""

    where: str  # its place in the list, for messages
    pictures: list[Path | Member | Held]
    row: dict[str, Any]  # what is said of them


class Shards(NamedTuple):
    """What was written."""

    files: list[Path]
    samples: int
    bytes: int


def pack(
    packed: Iterable[Packed],
    folder: Path,
    bad: Callable[[ValueError], None],
    *,
    shard_bytes: int = 500_000_000,
    max_side: int | None = None,
    quality: int = 92,
    seed: int | None = None,
) -> Shards:
    """Writes samples into 00000.tar, 00001.tar, ... of a folder; each has its name when it is complete.

    A picture is decoded first: a broken one leaves its sample out, and `bad` is told. Its bytes are taken as they are;
    with `max_side` a larger one is reduced to so many pixels and written as JPEG of `quality`.

    Args:
        shard_bytes: a shard is begun anew beyond so many.
        seed: shuffles the samples before; None: in the list's order.

    Raises:
        ValueError: the folder holds shards already, no sample can be packed, or a number below its least value.
    """
    for key, value, least in (("shard_bytes", shard_bytes, 1), ("max_side", max_side or 1, 1), ("quality", quality, 1)):
        if value < least:
            raise ValueError(f"{key} is {value}; it must be at least {least}")
    if any(folder.glob("*.tar")):
        raise ValueError(f"{folder} holds shards already; name another folder, or remove them")
    if seed is not None:
        packed = list(packed)
        random.Random(seed).shuffle(packed)
    made = (one for each in packed if (one := _made(each, max_side, quality, bad)) is not None)
    files, number, written, first = [], 0, 0, next(made, None)
    if first is None:
        raise ValueError("there is nothing to pack: every row is left out")
    while first is not None:
        file = folder / f"{len(files):05d}.tar"
        with replaced(file) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            while first is not None and (tar.offset == 0 or tar.offset < shard_bytes):
                for suffix, content in first:
                    info = tarfile.TarInfo(f"{number:09d}{suffix}")  # time and owner are 0: equal lists, equal bytes
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
                number, first = number + 1, next(made, None)
        files.append(file)
        written += file.stat().st_size
        log.info("%s: %d samples so far", file, number)
    return Shards(files, number, written)


def _made(
    one: Packed, max_side: int | None, quality: int, bad: Callable[[ValueError], None]
) -> list[tuple[str, bytes]] | None:
    """Suffix and content of a sample's members; None where it is left out."""
    try:
        members = []
        if not one.pictures:
            raise ValueError("there is no picture")
        for place, path in enumerate(one.pictures):
            try:
                suffix, content = _picture(path, max_side, quality)
            except OSError:
                raise ValueError(f"there is no picture {path}") from None
            members.append((f".{place}{suffix}" if len(one.pictures) > 1 else suffix, content))
    except ValueError as error:
        bad(ValueError(f"{one.where}: {error}"))
        return None
    if captions := one.row.get("captions"):  # for readers that know no more than a text
        members.append((".txt", captions[0].encode()))
    return [*members, (".json", json.dumps(one.row, ensure_ascii=False).encode())]


def _picture(path: Path | Member | Held, max_side: int | None, quality: int) -> tuple[str, bytes]:
    content = path.read_bytes()
    if not content:
        raise ValueError(f"the picture {path} is empty (0 bytes)")
    suffix = Path(path.name).suffix.lower()
    picture = read_picture(path, WHOLE if max_side is None else (2 * max_side) ** 2)
    if max_side is None or max(_size(content)) <= max_side:
        if suffix not in PICTURE_SUFFIXES:
            raise ValueError(f"{path} ends with {suffix or 'no suffix'}, which no reader of shards takes for a picture")
        return suffix, content
    picture.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return ".jpg", out.getvalue()


def _size(content: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(content)) as picture:
        return picture.size


def said(rows: Iterable[tuple[str, list[Path | Member | Held], dict[str, Any]]]) -> Iterator[Packed]:
    """Rows as samples, what is empty left out of what they say."""
    for where, pictures, row in rows:
        yield Packed(where, pictures, {name: value for name, value in row.items() if value not in ("", None, [])})
