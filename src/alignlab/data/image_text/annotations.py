"""Reads lists of pictures and captions: JSONL, JSON, CSV, TSV, and the "Karpathy" JSON of COCO and Flickr30k."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.data.tables import SUFFIXES, read_table
from alignlab.files.text import flaw, json_lines, kind_of, lacking, meant, parse_json, read_text

log = logging.getLogger(__name__)
IMAGE_KEYS = ("image", "filepath", "file_name", "filename", "path")
CAPTION_KEYS = ("caption", "captions", "title", "text")
_SPLITS = {
    **dict.fromkeys(("train", "training", "restval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_KEY = "annotations"


class CaptionedPicture(NamedTuple):
    """A picture file, its captions, and the place in the list where it comes from."""

    path: Path
    captions: tuple[str, ...]
    where: str  # "annotations=captions.jsonl, line 3", for messages
    name: str  # its path below the folder of the pictures, which decides about the split


class _Entry(NamedTuple):
    where: str
    split: str
    name: str
    captions: list[str]


def read_annotations(
    file: str | Path, image_dir: str | Path | None = None, key: str = _KEY
) -> dict[str, list[CaptionedPicture]]:
    """Pictures by split, in the file's order; rows of one picture are joined. Rows without a split are under "".

    `image_dir` is where relative paths start; None: the folder of the file. `key`: what gave the file, for messages.

    Raises:
        ValueError: naming file, row and key: no such file, no text, no image or caption, a value of another kind.
    """
    file = Path(file).expanduser()
    folder = Path(image_dir).expanduser() if image_dir is not None else file.parent
    pictures: dict[tuple[str, Path], CaptionedPicture] = {}
    for row in _rows(file, key):
        captions = tuple(caption.strip() for caption in row.captions if caption.strip())
        if not captions:
            raise ValueError(f"{row.where}: the picture {row.name} has no caption")
        place = (row.split, folder / row.name)
        known = pictures.get(place)
        pictures[place] = (
            known._replace(captions=known.captions + captions)
            if known
            else CaptionedPicture(place[1], captions, row.where, _below(folder, place[1]))
        )
    if not pictures:
        raise ValueError(f"{key}={file} lists no picture")
    splits: dict[str, list[CaptionedPicture]] = {}
    for (split, _), picture in pictures.items():
        splits.setdefault(split, []).append(picture)
    _say_unused(splits, f"{key}={file}")
    return splits


def split_by_hash(
    pictures: list[CaptionedPicture], share: float
) -> tuple[list[CaptionedPicture], list[CaptionedPicture]]:
    """Divides pictures into training and held-out ones by a hash of their names: stable when others are added or all
    are moved.
    """
    held_out = [picture for picture in pictures if _hash(picture.name) < share]
    return [picture for picture in pictures if _hash(picture.name) >= share], held_out


def _rows(file: Path, key: str) -> Iterator[_Entry]:
    suffix = file.suffix.lower()
    if suffix in SUFFIXES:
        for _, where, entry in read_table(file, key, _understood, f"it must name {_wanted()}"):
            yield _entry(entry, where)
    elif suffix == ".jsonl":
        for _, where, entry in json_lines(file, key):
            yield _entry(entry, where)
    elif suffix == ".json":
        content = parse_json(read_text(file, key), f"{key}={file}")
        karpathy = isinstance(content, dict) and "images" in content
        entries = content["images"] if karpathy else content
        if not isinstance(entries, list):
            raise ValueError(
                f'{key}={file} holds neither a list of pictures nor a "Karpathy" file with the key images, '
                f"but {kind_of(entries)}"
            )
        for number, entry in enumerate(entries, start=1):
            where = f"{key}={file}, row {number}"
            if not isinstance(entry, dict):
                raise ValueError(f"{where}: a row must be an object with keys, not {kind_of(entry)}")
            yield _karpathy_entry(entry, where) if karpathy else _entry(entry, where)
    else:
        raise ValueError(f"{key}={file}: captions come as .jsonl, .json, .csv or .tsv")


def _understood(header: list[str]) -> bool:
    return any(key in header for key in IMAGE_KEYS) and any(key in header for key in CAPTION_KEYS)


def _wanted() -> str:
    return f"the picture ({', '.join(IMAGE_KEYS)}) and its caption ({', '.join(CAPTION_KEYS)})"


def _entry(entry: dict[str, Any], where: str) -> _Entry:
    """A row; the first of the keys that holds something counts. Capitals and spaces around keys don't matter."""
    names = {name.strip().lower(): name for name in entry}
    if len(names) < len(entry):
        raise ValueError(f"{where}: two keys differ only in capitals or spaces: {', '.join(entry)}")
    filled = {key: names[key] for key in names if entry[names[key]] not in (None, "", [])}
    image, caption = (next((filled[key] for key in keys if key in filled), None) for keys in (IMAGE_KEYS, CAPTION_KEYS))
    if image is None:
        raise ValueError(f"{where} has none of the keys {', '.join(IMAGE_KEYS)}, {lacking(entry, IMAGE_KEYS)}")
    name = checked_text(entry[image], where, image)
    if caption is None:
        guess = "".join(f"; did you mean {known} by {said}?" for said, known in meant(entry, CAPTION_KEYS).items())
        raise ValueError(f"{where}: the picture {name} has no caption ({', '.join(CAPTION_KEYS)}){guess}")
    return _Entry(where, _split(entry.get(names.get("split")), where), name, _captions(entry[caption], where, caption))


def _captions(value: object, where: str, key: str) -> list[str]:
    if isinstance(value, list):
        return [checked_text(one, where, f"{key}[{number}]") for number, one in enumerate(value)]
    wanted = "a text or a list of texts"
    if isinstance(value, dict):
        wanted += ", such as the value of one of its keys"
    return [checked_text(value, where, key, wanted)]


def _karpathy_entry(entry: dict[str, Any], where: str) -> _Entry:
    sentences = entry.get("sentences")
    missing = [key for key in ("filename", "split", "sentences") if entry.get(key) is None]
    if missing:
        raise ValueError(f'{where} is no entry of a "Karpathy" file: {", ".join(missing)} is missing')
    if not isinstance(sentences, list) or not all(isinstance(one, dict) and "raw" in one for one in sentences):
        raise ValueError(f"{where}: sentences is {kind_of(sentences)}; it must be a list of objects with the key raw")
    folder = checked_text(entry["filepath"], where, "filepath") if entry.get("filepath") else ""
    captions = [checked_text(one["raw"], where, f"sentences[{number}].raw") for number, one in enumerate(sentences)]
    name = str(Path(folder) / checked_text(entry["filename"], where, "filename"))
    return _Entry(where, _split(entry["split"], where), name, captions)


def checked_text(value: object, where: str, key: str, wanted: str = "a text") -> str:
    """A field's value.

    Raises:
        ValueError: it is no text, or holds what no text holds.
    """
    if not isinstance(value, str):
        raise ValueError(f"{where}: {key} is {kind_of(value)}; it must be {wanted}")
    if found := "a zero byte" if "\0" in value else flaw(value):
        raise ValueError(f"{where}: {key} holds {found}")
    return value


def _split(value: object, where: str) -> str:
    if value is None:
        return ""
    name = checked_text(value, where, "split", "train, val, test or empty").strip()
    return _SPLITS.get(name.lower(), name)


def _say_unused(splits: dict[str, list[CaptionedPicture]], name: str) -> None:
    others = Counter({split: len(found) for split, found in splits.items() if split not in ("", *_SPLITS.values())})
    if others:
        told = ", ".join(f"{split!r} ({number})" for split, number in others.items())
        log.warning("%s: pictures of the splits %s are neither trained on nor validated with", name, told)


def _below(folder: Path, path: Path) -> str:
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def _hash(name: str) -> float:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") / 2**64
