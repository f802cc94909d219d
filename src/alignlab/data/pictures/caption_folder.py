"""A folder of pictures with captions in text files of the same name."""

from collections.abc import Iterator
from pathlib import Path

from alignlab.data.pictures.members import PICTURE_SUFFIXES
from alignlab.files.text import read_lines

TEXT_SUFFIXES = (".txt", ".caption")


def rows_of_folder(folder: Path, key: str) -> Iterator[tuple[str, dict]]:
    """Place and row of every picture in a folder and below it, sorted: each line of `1.txt` is a caption of `1.jpg`.
    One without a text file has no captions.

    Raises:
        ValueError: there is no picture at all, or (when it comes to its row) a text can't be read.
    """
    pictures = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in PICTURE_SUFFIXES and not any(part.startswith(".") for part in path.parts[-1:])
    )
    if not pictures:
        raise ValueError(f"{key}={folder}: neither a picture nor a shard (.tar) lies in this folder")
    for path in pictures:
        name = path.relative_to(folder).as_posix()
        text = next((text for suffix in TEXT_SUFFIXES if (text := path.with_suffix(suffix)).is_file()), None)
        yield f"{key}={folder}, picture {name}", {"image": name, "captions": text}


def captions_in(text: Path | None, key: str) -> list[str]:
    """The lines of a text file that aren't blank."""
    return [] if text is None else [line.strip() for line in read_lines(text, key) if line.strip()]
