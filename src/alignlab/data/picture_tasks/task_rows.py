"""Rows of lists for tasks on pictures: what every format is turned into, and what all readers of lists share."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.data.image_text.annotations import IMAGE_KEYS
from alignlab.data.image_text.list_values import checked_text, split_of
from alignlab.data.pictures.members import Member
from alignlab.data.shards.reading import are_shards, samples, shards_of
from alignlab.data.tables import SUFFIXES, read_table
from alignlab.files.text import json_items, json_lines, kind_of, lacking, read_lines

Bad = Callable[[ValueError], None] | None
Entry = tuple[str, Any]  # place for messages, and what stands there
SIDES = (("left", "right"), ("image0", "image1"), ("image1", "image2"), ("left_image", "right_image"))


class TaskRow(NamedTuple):
    """What a list says in one place."""

    where: str  # "annotations=questions.csv, line 3"
    split: str  # "train", "val", "test", any other name, or "" for none
    pictures: Sequence[str | Member]  # as the list has them
    text: str
    told: Any  # answers with their shares, or a label
    kind: str = ""  # rows of a kind are counted apart


def entries(file: Path, key: str, wanted: Callable[[Mapping[str, Any]], bool], asked: str, bad: Bad) -> Iterator[Entry]:
    """Place and content of every row of a .csv, .tsv, .jsonl or .json file, or of shards, names in lower case;
    values of a .json file that holds no list, and rows that are no object, come as they are.

    Args:
        wanted: whether a table with these columns is understood; `asked` says in messages what it must name.
        bad: is told what is wrong with a row, which is then left out; None: it is raised.

    Raises:
        ValueError: naming file and row.
    """
    suffix = file.suffix.lower()
    if are_shards(str(file)):
        for shard in shards_of(str(file), key):
            for sample in samples(shard, key, bad):
                row = lowered(sample.row, sample.where)
                yield sample.where, {k: v for k, v in row.items() if k not in IMAGE_KEYS} | {"images": sample.pictures}
    elif suffix in SUFFIXES:
        understood = lambda header: wanted(dict.fromkeys(header))  # noqa: E731
        for _, where, row in read_table(file, key, understood, f"it must name {asked}", bad):
            yield where, row
    elif suffix == ".jsonl" or (suffix == ".json" and _has_lines(file, key)):
        for _, where, row in json_lines(file, key, bad):
            yield where, lowered(row, where)
    elif suffix == ".json":
        for _, where, row in json_items(file, key):
            yield where, lowered(row, where) if isinstance(row, dict) else row
    elif not file.exists():
        raise ValueError(f"{key}={file}: there is no such file")
    else:
        raise ValueError(f"{key}={file}: rows of tasks come as .jsonl, .json, .csv or .tsv, or as .tar shards")


def _has_lines(file: Path, key: str) -> bool:
    """Whether a .json file holds an object a line, as NLVR2's do."""
    lines = (line for line in read_lines(file, key) if line.strip())
    first = next(lines, "")
    try:
        return first.startswith("{") and isinstance(json.loads(first), dict) and next(lines, "").startswith("{")
    except ValueError:
        return False


def lowered(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A row with its names in lower case and without spaces around them."""
    plain = {name.strip().lower(): value for name, value in row.items()}
    if len(plain) < len(row):
        raise ValueError(f"{where}: two keys differ only in capitals or spaces: {', '.join(row)}")
    return plain


def tried(bad: Bad, make: Callable[..., Iterator[TaskRow]], *of: Any) -> Iterator[TaskRow]:
    """The rows that a place makes; none where it is wrong and left out."""
    try:
        yield from make(*of)
    except ValueError as error:
        if bad is None:
            raise
        bad(error)


def field(row: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    """The text under the first of some names that holds something. Raises ValueError where none does."""
    name = next((name for name in names if row.get(name) not in (None, "", [])), None)
    if name is None:
        one = names[0] if len(names) == 1 else f"{names[0]} (or {', '.join(names[1:])})"
        raise ValueError(f"{where}: there is no {one}, {lacking(row, names)}")
    return checked_text(row[name], where, name).strip()


def pictures_of(row: Mapping[str, Any], where: str) -> list[str | Member]:
    """A row's pictures: one under any of the usual names, several as a list `images`, two as `left` and `right`."""
    several = row.get("images")
    if isinstance(several, str):
        several = [one for one in several.split("|") if one.strip()]
    if isinstance(several, list) and several:
        if isinstance(several[0], Member):
            return several
        return [checked_text(one, where, f"images[{number}]").strip() for number, one in enumerate(several)]
    for pair in SIDES:
        if all(row.get(name) for name in pair):
            return [checked_text(row[name], where, name).strip() for name in pair]
    return [field(row, IMAGE_KEYS, where)]


def has_pictures(columns: Mapping[str, Any]) -> bool:
    """Whether a table's columns name pictures."""
    return "images" in columns or any(k in columns for k in IMAGE_KEYS) or any(set(p) <= set(columns) for p in SIDES)


def own_split(row: Mapping[str, Any], where: str) -> str:
    """A row's split."""
    return split_of(row.get("split"), where)


def refuse_stranger(row: Any, where: str) -> None:
    """Raises ValueError for what is no object with keys."""
    if not isinstance(row, dict):
        raise ValueError(f"{where}: a row must be an object with keys, not {kind_of(row)}")
