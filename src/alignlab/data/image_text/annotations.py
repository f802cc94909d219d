"""Reads lists of pictures and captions: JSONL, JSON, CSV, TSV, and those that COCO and Flickr30k come with; tar shards,
and folders with a text beside each picture.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from alignlab.data.image_text import published_lists
from alignlab.data.image_text.list_values import CAPTION_KEYS, IMAGE_KEYS, SPLITS, checked_text, split_of
from alignlab.data.image_text.picture_list import Pictures, Row, open_list
from alignlab.data.pictures.caption_folder import captions_in, rows_of_folder
from alignlab.data.shards.reading import Sample, are_shards, samples, shards_of
from alignlab.data.shares import held_out_of
from alignlab.data.tables import SUFFIXES, read_table
from alignlab.files.text import json_items, json_lines, kind_of, lacking, meant

log = logging.getLogger(__name__)
_KEY = "annotations"
Bad = Callable[[ValueError], None] | None


def read_annotations(
    file: str | Path, image_dir: str | Path | None = None, key: str = _KEY, bad: Bad = None
) -> dict[str, Pictures]:
    """Pictures by split, in the file's order; rows of one picture are joined. Rows without a split are under "".

    Args:
        file: a list; a folder of pictures with a text of the same name beside each; or shards, see `shards_of`.
        image_dir: where relative paths start; None: the folder of the file.
        key: what gave the file, for messages.
        bad: is told what is wrong with a row, which is then left out; None: it is raised.

    Raises:
        ValueError: naming file, row and key: no such file, no text, no image or caption, a value of another kind.
    """
    if are_shards(str(file)):
        files, place = shards_of(str(file), key), f"{key}={file}"
        folder = files[0].parent
        entries = _of_shards(files, folder, key, bad)
    else:
        file = Path(file).expanduser()
        files, place = [file], f"{key}={file}"
        folder = Path(image_dir).expanduser() if image_dir is not None else file if file.is_dir() else file.parent
        entries = _entries(file, folder, key, bad)
    rows = (_tried(bad, _row, entry, place) for entry in entries if entry is not None)
    held = open_list(files, folder, place, (row for row in rows if row is not None), bad)
    splits = {name: Pictures([(held, numbers)]) for name, numbers in held.splits.items()}
    _say_unused(splits, place)
    return splits


def split_by_hash(pictures: Pictures, share: float, most: int | None = None) -> tuple[Pictures, Pictures]:
    """Divides pictures into training and held-out ones by a hash of their names: stable when others are added or all
    are moved. At most `most` are held out.
    """
    held_out = held_out_of(pictures.hashes(), share, most)
    return pictures.where(~held_out), pictures.where(held_out)


def _tried(bad: Bad, make: Callable[..., Row], *of: Any) -> Row | None:
    """A row; None where it is wrong and left out."""
    try:
        return make(*of)
    except ValueError as error:
        if bad is None:
            raise
        bad(error)
        return None


def _row(entry: Row, place: str) -> Row:
    captions = [caption.strip() for caption in entry.captions if caption.strip()]
    if not captions:
        raise ValueError(f"{entry.where}: the picture {entry.name} has no caption")
    return entry._replace(where=entry.where.removeprefix(f"{place}, "), captions=captions)


def _of_shards(files: Sequence[Path], folder: Path, key: str, bad: Bad) -> Iterator[Row | None]:
    """A row for each sample, with its first picture."""
    said: set[str] = set()
    for shard in files:
        for sample in samples(shard, key, bad):
            yield _tried(bad, _of_sample, sample, folder, said)


def _of_sample(sample: Sample, folder: Path, said: set[str]) -> Row:
    if not sample.pictures:
        raise ValueError(f"{sample.where}: there is no picture, only {', '.join(sample.suffixes)}")
    file, offset, size, name = sample.pictures[0]
    file = file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)
    row = {name: value for name, value in sample.row.items() if name.strip().lower() not in IMAGE_KEYS}
    entry = _entry({"image": f"{file}/{name}", **row}, sample.where, said)
    return entry._replace(where=f"{file}, sample {sample.key}", member=(file, offset, size))


def _of_picture(where: str, row: dict[str, Any], said: set[str]) -> Row:
    return _entry(row | {"captions": captions_in(row["captions"], where)}, where, said)


def _entries(file: Path, folder: Path, key: str, bad: Bad) -> Iterator[Row | None]:
    suffix, said = file.suffix.lower(), set()
    if file.is_dir():
        for where, row in rows_of_folder(file, key):
            yield _tried(bad, _of_picture, where, row, said)
    elif suffix in SUFFIXES:
        for _, where, entry in read_table(file, key, _understood, f"it must name {_wanted()}", bad):
            yield _tried(bad, _entry, entry, where, said)
    elif suffix == ".jsonl":
        for _, where, entry in json_lines(file, key, bad):
            yield _tried(bad, _entry, entry, where, said)
    elif suffix == ".json":
        for number, where, entry in json_items(file, key):
            if number == 0:
                yield from published_lists.rows_of(entry, f"{key}={file}", folder)
            else:
                yield _tried(bad, _entry, entry, where, said)
    elif not file.exists():
        raise ValueError(f"{key}={file}: there is no such file or folder")
    else:
        raise ValueError(f"{key}={file}: captions come as .jsonl, .json, .csv or .tsv, as .tar shards or a folder")


def _understood(header: list[str]) -> bool:
    return any(key in header for key in IMAGE_KEYS) and any(key in header for key in CAPTION_KEYS)


def _wanted() -> str:
    return f"the picture ({', '.join(IMAGE_KEYS)}) and its caption ({', '.join(CAPTION_KEYS)})"


def _entry(entry: dict[str, Any], where: str, said: set[str]) -> Row:
    """A row; the first of the keys that holds something counts. Capitals and spaces around keys don't matter.

    `said`: keys that were met, of which those that look like one that is read are named once.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: a row must be an object with keys, not {kind_of(entry)}")
    if not said.issuperset(entry):
        for name, known in meant(entry, (*IMAGE_KEYS, *CAPTION_KEYS, "split")).items():
            if name not in said and known == "split":  # others are missed where they are needed
                log.warning("%s: nothing reads the key %s; did you mean split?", where, name)
        said.update(entry)
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
    return Row(where, split_of(entry.get(names.get("split")), where), name, _captions(entry[caption], where, caption))


def _captions(value: object, where: str, key: str) -> list[str]:
    if isinstance(value, list):
        return [checked_text(one, where, f"{key}[{number}]") for number, one in enumerate(value)]
    wanted = "a text or a list of texts"
    if isinstance(value, dict):
        wanted += ", such as the value of one of its keys"
    return [checked_text(value, where, key, wanted)]


def _say_unused(splits: dict[str, Pictures], name: str) -> None:
    others = Counter({split: len(members) for split, members in splits.items() if split not in ("", *SPLITS.values())})
    if others:
        told = ", ".join(f"{split!r} ({number})" for split, number in others.items())
        log.warning("%s: pictures of the splits %s are neither trained on nor validated with", name, told)
