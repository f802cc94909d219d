"""Data sets of the Hugging Face hub with pictures, to be packed as shards, which every reader of lists takes."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

PREFIX = "hub:"
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif"}


class Held(NamedTuple):
    """A picture file in memory, as far as a path can say of one on disk."""

    content: bytes
    name: str

    def read_bytes(self) -> bytes:
        return self.content

    def open(self, mode: str = "rb") -> io.BytesIO:
        return io.BytesIO(self.content)

    def __str__(self) -> str:
        return self.name


def hub_rows(place: str, split: str, config: str | None = None) -> Iterator[tuple[str, list, dict[str, Any]]]:
    """Place, pictures and all other columns of every row; pictures as the files that they are, classes by their names.

    Args:
        place: `hub:` and a data set's name, or a folder that `datasets` understands.
        split: of the data set, as `config`.

    Raises:
        ValueError: the package `datasets` is missing, it can't load this, or there is no column of pictures.
    """
    try:
        import datasets
    except ImportError:
        raise ValueError("a data set of the hub needs the package datasets: pip install 'alignlab[rlhf]'") from None
    name = place.removeprefix(PREFIX)
    try:
        loaded = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # of the network, the hub, the file formats
        raise ValueError(f"{place}: {(str(error).strip() or type(error).__name__).splitlines()[0]}") from None
    shown = [column for column, feature in loaded.features.items() if isinstance(feature, datasets.Image)]
    classes = {c: feature for c, feature in loaded.features.items() if isinstance(feature, datasets.ClassLabel)}
    if not shown:
        raise ValueError(f"{place}: no column holds pictures, only {', '.join(loaded.features)}")
    for column in shown:
        loaded = loaded.cast_column(column, datasets.Image(decode=False))
    for number, row in enumerate(loaded):
        where = f"{place}, row {number + 1}"
        pictures = [_picture(row.pop(column), f"{column} of {where}") for column in shown]
        for column, feature in classes.items():
            if isinstance(row[column], int) and row[column] >= 0:
                row[column] = feature.int2str(row[column])
        said = {column: value for column, value in row.items() if _is_json(value)}
        yield where, [one for one in pictures if one is not None], said


def _picture(value: dict[str, Any] | None, name: str) -> Held | None:
    if value is None:
        return None
    content = value.get("bytes")
    if content is None:
        content = Path(value["path"]).read_bytes() if value.get("path") else b""
    return Held(content, f"{name}{_suffix(content)}")


def _suffix(content: bytes) -> str:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as picture:
            return _SUFFIXES.get(picture.format or "", ".png")
    except Exception:  # broken: whoever decodes it says so
        return ".png"


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_json(one) for one in value.values())
    return all(map(_is_json, value)) if isinstance(value, list) else isinstance(value, str | int | float)
