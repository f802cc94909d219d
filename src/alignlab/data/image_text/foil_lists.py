"""Lists of (picture, true caption, foil), to measure whether a model tells them apart: JSONL, JSON, CSV, TSV."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alignlab.data.image_text.annotations import CAPTION_KEYS, IMAGE_KEYS
from alignlab.data.image_text.batches import FoilSet
from alignlab.data.image_text.list_values import checked_text
from alignlab.data.tables import SUFFIXES, read_table
from alignlab.files.text import json_lines, kind_of, lacking, parse_json, read_text

DEFAULT_KIND = "foils"
_FOIL, _FOIL_IMAGE, _KIND = "foil", "foil_image", "kind"
_KNOWN = (*IMAGE_KEYS, *CAPTION_KEYS, _FOIL, _FOIL_IMAGE, _KIND)


class FoilRow(NamedTuple):
    """A picture, the caption that is true of it, and one that isn't."""

    where: str  # place in the list, for messages
    image: Path
    caption: str
    foil: str
    foil_image: Path | None  # a picture of which the foil is true and the caption isn't
    kind: str  # rows of a kind are counted together


def read_foils(file: str | Path, image_dir: str | Path | None = None, key: str = "foil_annotations") -> list[FoilRow]:
    """The rows of a list, in its order.

    A row has a picture and its caption, under the names that lists of captions have, and `foil`; perhaps `foil_image`
    (Winoground's second picture) and `kind`. Capitals and spaces around names don't matter.

    Args:
        file: .jsonl, .json (a list of objects), .csv or .tsv.
        image_dir: where relative paths start; None: the folder of the file.
        key: what gave the file, for messages.

    Raises:
        ValueError: naming file, row and field: no such file, a field that is missing or no text, a picture that isn't
            there, a foil that is the caption, a kind that is no name.
    """
    file = Path(file).expanduser()
    folder = Path(image_dir).expanduser() if image_dir is not None else file.parent
    rows = [_row(entry, where, folder) for where, entry in _entries(file, key)]
    if not rows:
        raise ValueError(f"{key}={file} lists no picture")
    return rows


def own_foil_sets(
    rows: list[FoilRow],
    picture: Callable[[FoilRow, int], np.ndarray],
    clean: Callable[[str], str],
    max_rows: int | None = None,
) -> dict[str, FoilSet]:
    """A set for each kind; of two pictures a row where all its rows have them.

    Args:
        rows: of a list.
        picture: row, 0 for its picture or 1 for the foil's -> (H, W, 3) uint8.
        clean: of captions.
        max_rows: the first so many of each kind; None: all.
    """
    kinds: dict[str, list[FoilRow]] = {}
    for row in rows:
        kinds.setdefault(row.kind, []).append(row)
    return {kind: _foil_set(rows_of[:max_rows], picture, clean) for kind, rows_of in kinds.items()}


def _foil_set(
    rows: list[FoilRow], picture: Callable[[FoilRow, int], np.ndarray], clean: Callable[[str], str]
) -> FoilSet:
    captions = [(clean(row.caption), clean(row.foil)) for row in rows]
    pictures = 1 if any(row.foil_image is None for row in rows) else 2
    return FoilSet(captions, lambda number, side: picture(rows[number], side), pictures)


def _entries(file: Path, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    suffix = file.suffix.lower()
    if suffix in SUFFIXES:
        wanted = f"it must name the picture ({', '.join(IMAGE_KEYS)}), its caption ({', '.join(CAPTION_KEYS)}) and foil"
        for _, where, entry in read_table(file, key, lambda header: _FOIL in header, wanted):
            yield where, entry
    elif suffix == ".jsonl":
        for _, where, entry in json_lines(file, key):
            yield where, entry
    elif suffix == ".json":
        entries = parse_json(read_text(file, key), f"{key}={file}")
        if not isinstance(entries, list):
            raise ValueError(f"{key}={file} must hold a list of objects, not {kind_of(entries)}")
        for number, entry in enumerate(entries, start=1):
            if not isinstance(entry, dict):
                raise ValueError(f"{key}={file}, row {number}: it must be an object with keys, not {kind_of(entry)}")
            yield f"{key}={file}, row {number}", entry
    else:
        raise ValueError(f"{key}={file}: foils come as .jsonl, .json, .csv or .tsv")


def _row(entry: dict[str, Any], where: str, folder: Path) -> FoilRow:
    plain = {name.strip().lower(): value for name, value in entry.items()}

    def field(*names: str) -> str | None:
        name = next((name for name in names if plain.get(name) not in (None, "")), None)
        return None if name is None else checked_text(plain[name], where, name).strip()

    def needed(*names: str) -> str:
        if not (text := field(*names)):
            one = names[0] if len(names) == 1 else f"{names[0]} (or {', '.join(names[1:])})"
            raise ValueError(f"{where}: there is no {one}, {lacking(plain, names, _KNOWN)}")
        return text

    def file(name: str) -> Path:
        path = folder / Path(name).expanduser()
        if not path.is_file():
            raise ValueError(f"{where}: there is no picture {path}")
        return path

    image, caption, foil = needed(*IMAGE_KEYS), needed(*CAPTION_KEYS), needed(_FOIL)
    if foil == caption:
        raise ValueError(f"{where}: the foil is the caption itself, {caption!r}")
    kind, second = field(_KIND) or DEFAULT_KIND, field(_FOIL_IMAGE)
    if not re.fullmatch(r"[\w-]+", kind):
        raise ValueError(f"{where}: kind is {kind!r}; it names metrics, so it is made of letters, digits, _ and -")
    return FoilRow(where, file(image), caption, foil, file(second) if second else None, kind)
