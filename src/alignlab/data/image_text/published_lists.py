"""The lists that COCO and Flickr30k come with: the "Karpathy" file with its splits, and COCO's own captions_*.json."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from alignlab.data.image_text.list_values import checked_text, split_of
from alignlab.data.image_text.picture_list import Row
from alignlab.files.text import kind_of


def rows_of(content: object, place: str, folder: Path) -> Iterator[Row]:
    """Rows of a .json file that holds no list.

    Raises:
        ValueError: naming place and row: it is none of these lists, or a value of another kind.
    """
    entries = content.get("images") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise ValueError(
            f'{place} holds neither a list of pictures nor a "Karpathy" file or one of COCO with the key images, '
            f"but {kind_of(content if entries is None else entries)}"
        )
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            raise ValueError(f"{place}, row {number}: a row must be an object with keys, not {kind_of(entry)}")
    if entries and "file_name" in entries[0] and "sentences" not in entries[0]:
        yield from _coco(content, entries, place, folder)
    else:
        yield from (_karpathy(entry, f"{place}, row {number}") for number, entry in enumerate(entries, start=1))


def _coco(content: dict[str, Any], images: list[dict[str, Any]], place: str, folder: Path) -> Iterator[Row]:
    """COCO's captions: one of its files is one split, which it doesn't name."""
    captions = content.get("annotations")
    first = captions[0] if isinstance(captions, list) and captions else None
    if not isinstance(first, dict) or "caption" not in first or "image_id" not in first:
        holds = f"annotations with {', '.join(first)}" if isinstance(first, dict) else "no annotations"
        raise ValueError(f"{place} is a file of COCO without captions ({holds}): take captions_*.json")
    below, of_image = _folder(images[0], folder), {}
    for number, one in enumerate(captions, start=1):
        where = f"{place}, annotation {number}"
        if not isinstance(one, dict) or one.get("image_id") is None:
            raise ValueError(f"{where} names no image_id")
        of_image.setdefault(one["image_id"], []).append(checked_text(one.get("caption"), where, "caption"))
    for number, image in enumerate(images, start=1):
        where = f"{place}, row {number}"
        name = checked_text(image.get("file_name"), where, "file_name")
        yield Row(where, "", below + name, of_image.pop(image.get("id"), []))
    if of_image:
        raise ValueError(
            f"{place}: {len(of_image)} image_id of captions are no id of images, such as {next(iter(of_image))}"
        )


def _folder(image: dict[str, Any], folder: Path) -> str:
    """The folder of COCO's pictures below that of the list, as their address has it, where the first isn't in it."""
    name, address = image.get("file_name"), image.get("coco_url")
    if not isinstance(name, str) or not isinstance(address, str) or (folder / name).exists():
        return ""
    below = PurePosixPath(address).parent.name
    return f"{below}/" if (folder / below / name).exists() else ""


def _karpathy(entry: dict[str, Any], where: str) -> Row:
    sentences = entry.get("sentences")
    missing = [key for key in ("filename", "split", "sentences") if entry.get(key) is None]
    if missing:
        raise ValueError(f'{where} is no entry of a "Karpathy" file: {", ".join(missing)} is missing')
    if not isinstance(sentences, list) or not all(isinstance(one, dict) and "raw" in one for one in sentences):
        raise ValueError(f"{where}: sentences is {kind_of(sentences)}; it must be a list of objects with the key raw")
    folder = checked_text(entry["filepath"], where, "filepath") if entry.get("filepath") else ""
    captions = [checked_text(one["raw"], where, f"sentences[{number}].raw") for number, one in enumerate(sentences)]
    name = str(Path(folder) / checked_text(entry["filename"], where, "filename"))
    return Row(where, split_of(entry["split"], where), name, captions)
