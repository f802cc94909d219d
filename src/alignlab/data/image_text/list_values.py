"""Values in lists of pictures: texts and names of splits."""

from alignlab.files.text import flaw, kind_of

IMAGE_KEYS = ("image", "filepath", "file_name", "filename", "path")
CAPTION_KEYS = ("caption", "captions", "title", "text")
SPLITS = {
    **dict.fromkeys(("train", "training", "restval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def checked_text(value: object, where: str, key: str, wanted: str = "a text") -> str:
    """A value that must be a text fit for files and tokenizers. Raises ValueError that says what it is."""
    if not isinstance(value, str):
        raise ValueError(f"{where}: {key} is {kind_of(value)}; it must be {wanted}")
    if flawed := "a zero byte" if "\0" in value else flaw(value):
        raise ValueError(f"{where}: {key} holds {flawed}")
    return value


def split_of(value: object, where: str) -> str:
    """train, val or test under any of their usual names, "" for none; any other name as it is."""
    if value is None:
        return ""
    name = checked_text(value, where, "split", "train, val, test or empty").strip()
    return SPLITS.get(name.lower(), name)
