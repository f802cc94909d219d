"""Reads lists of pictures and captions: JSONL, JSON, CSV, TSV, and the "Karpathy" JSON of COCO and Flickr30k."""

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_IMAGE_KEYS = ("image", "filepath", "file_name", "filename", "path")
_CAPTION_KEYS = ("caption", "captions", "title", "text")
_KARPATHY_SPLITS = {"restval": "train"}


class CaptionedPicture(NamedTuple):
    """A picture file, its captions, and the place in the list where it comes from."""

    path: Path
    captions: tuple[str, ...]
    where: str  # "captions.jsonl, row 3", for messages


def read_annotations(file: str | Path, image_dir: str | Path | None = None) -> dict[str, list[CaptionedPicture]]:
    """Pictures by split, in the file's order; rows of one picture are joined. Rows without a split are under "".

    `image_dir` is where relative paths start; None: the folder of the file.

    Raises
    ------
    ValueError
        naming file and row: no such file, unreadable, no key for image or caption, no caption.
    """
    file = Path(file)
    if not file.is_file():
        raise ValueError(f"there is no file {file} (data.annotations)")
    folder = Path(image_dir) if image_dir is not None else file.parent
    pictures: dict[tuple[str, Path], CaptionedPicture] = {}
    for row, split, name, captions in _rows(file):
        where = f"{file}, row {row}"
        captions = tuple(caption.strip() for caption in captions if caption and caption.strip())
        if not captions:
            raise ValueError(f"{where}: the picture {name} has no caption")
        key = (split, folder / name)
        known = pictures.get(key)
        pictures[key] = (
            known._replace(captions=known.captions + captions) if known else CaptionedPicture(key[1], captions, where)
        )
    if not pictures:
        raise ValueError(f"{file} lists no picture")
    splits: dict[str, list[CaptionedPicture]] = {}
    for (split, _), picture in pictures.items():
        splits.setdefault(split, []).append(picture)
    return splits


def split_by_hash(
    pictures: list[CaptionedPicture], share: float
) -> tuple[list[CaptionedPicture], list[CaptionedPicture]]:
    """Divides pictures into training and held-out ones by a hash of the file's name: stable when others are added."""
    held_out = [picture for picture in pictures if _hash(picture.path.name) < share]
    return [picture for picture in pictures if _hash(picture.path.name) >= share], held_out


def check_files(pictures: list[CaptionedPicture]) -> None:
    """Raises a ValueError for the first picture whose file is missing or empty."""
    for picture in pictures:
        try:
            size = picture.path.stat().st_size
        except OSError:
            raise ValueError(f"{picture.where}: there is no picture {picture.path}") from None
        if size == 0:
            raise ValueError(f"{picture.where}: the picture {picture.path} is empty (0 bytes)")


def _rows(file: Path) -> Iterator[tuple[int, str, str, list[str]]]:
    """Row number from 1, split, path of the picture, captions."""
    try:
        if file.suffix in (".csv", ".tsv"):
            with file.open(encoding="utf-8-sig", newline="") as lines:
                for row, entry in enumerate(
                    csv.DictReader(lines, delimiter="\t" if file.suffix == ".tsv" else ","), start=2
                ):
                    yield (row, *_entry(entry, f"{file}, row {row}"))
        elif file.suffix == ".jsonl":
            with file.open(encoding="utf-8") as lines:
                for row, line in enumerate(lines, start=1):
                    if line.strip():
                        yield (row, *_entry(_parse(line, f"{file}, row {row}"), f"{file}, row {row}"))
        elif file.suffix == ".json":
            content = _parse(file.read_text(encoding="utf-8"), str(file))
            karpathy = isinstance(content, dict) and "images" in content
            entries = content["images"] if karpathy else content
            if not isinstance(entries, list):
                raise ValueError(f'{file} holds neither a list of pictures nor a "Karpathy" file with the key images')
            for row, entry in enumerate(entries, start=1):
                where = f"{file}, row {row}"
                yield (row, *(_karpathy_entry(entry, where) if karpathy else _entry(entry, where)))
        else:
            raise ValueError(f"{file}: captions come as .jsonl, .json, .csv or .tsv (data.annotations)")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text: {error}") from None


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON: {error}") from None


def _entry(entry: dict, where: str) -> tuple[str, str, list[str]]:
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is not an object with keys")
    image = next((entry[key] for key in _IMAGE_KEYS if entry.get(key)), None)
    if image is None:
        raise ValueError(f"{where} has none of the keys {', '.join(_IMAGE_KEYS)}")
    captions = next((entry[key] for key in _CAPTION_KEYS if entry.get(key) is not None), [])
    return entry.get("split") or "", str(image), [captions] if isinstance(captions, str) else list(captions)


def _karpathy_entry(entry: dict, where: str) -> tuple[str, str, list[str]]:
    try:
        name = str(Path(entry.get("filepath", "")) / entry["filename"])
        split = _KARPATHY_SPLITS.get(entry["split"], entry["split"])
        return split, name, [sentence["raw"] for sentence in entry["sentences"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{where} is no entry of a "Karpathy" file: {error!r} is missing') from None


def _hash(name: str) -> float:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") / 2**64
