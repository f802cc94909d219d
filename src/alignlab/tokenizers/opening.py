"""From what a user names to a tokenizer."""

import time
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from alignlab.tokenizers.kinds.hugging_face import open_fast, open_slow
from alignlab.tokenizers.kinds.ranks import open_ranks
from alignlab.tokenizers.kinds.sentencepiece_model import open_sentencepiece
from alignlab.tokenizers.kinds.tokenizer import Bytes, Characters, TextTokenizer
from alignlab.tokenizers.kinds.word_lists import open_clip, open_wordpiece

BUILT_IN = {"bytes": Bytes, "characters": Characters}


class Named(NamedTuple):
    """A tokenizer as it was named: `name=place`, or the place alone."""

    name: str
    place: str


def named(words: list[str]) -> list[Named]:
    """Names of tokenizers on the command line.

    Raises:
        ValueError: a name twice.
    """
    rows = []
    for word in words:
        name, separator, place = word.partition("=")
        rows.append(Named(name, place) if separator else Named(_short(word), word))
    for row in rows:
        same = [other.place for other in rows if other.name == row.name]
        if len(same) > 1:
            raise ValueError(f"two tokenizers are called {row.name} ({', '.join(same)}); name them: NAME=PLACE")
    return rows


def _short(place: str) -> str:
    path = Path(place.rpartition(":")[2])
    return (
        path.parent.name or path.stem
        if path.name in ("tokenizer.json", "tokenizer.model", "vocab.txt")
        else path.stem or place
    )


def open_tokenizer(place: str, threads: int = 1, package: bool | None = None) -> tuple[TextTokenizer, float]:
    """The tokenizer at a place, and the seconds that reading it took (libraries are imported before).

    Args:
        place: `bytes`, `characters`; a file; a folder or run directory; `package:name/path/in/it`; `slow:folder` for
            the Python one of transformers; a repository in the hub's cache.
        threads: of those that have their own.
        package: rank files and SentencePiece models by tiktoken and sentencepiece; default: where they are installed.

    Raises:
        ValueError: nothing is there, or it can't be read.
    """
    if place in BUILT_IN:
        return BUILT_IN[place](), 0.0
    for name in ("tiktoken", "sentencepiece"):
        if find_spec(name):
            __import__(name)
    if place.startswith("slow:"):
        path, opener = Path(place.removeprefix("slow:")), open_slow
    else:
        path = _located(place)
        path, opener = (_within(path) if path.is_dir() else path), None
    opener = opener or _opener(path)
    if opener is open_slow:
        import transformers  # noqa: F401  its import isn't the tokenizer's load time
    start = time.perf_counter()
    with_package = opener in (open_ranks, open_sentencepiece)
    tokenizer = opener(path, threads, package) if with_package else opener(path)
    return tokenizer, time.perf_counter() - start


def file_of(place: str) -> Path | None:
    """The file that a tokenizer is read from, or the folder for one that transformers puts together; None for one that
    needs no file."""
    if place in BUILT_IN:
        return None
    path = _located(place.removeprefix("slow:"))
    return _within(path) if path.is_dir() and not place.startswith("slow:") else path


def _located(place: str) -> Path:
    if place.startswith("package:"):
        module, _, inside = place.removeprefix("package:").partition("/")
        spec = find_spec(module) if module.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(f"{place}: no package {module} is installed")
        place = str(Path(spec.submodule_search_locations[0]) / inside)
    path = Path(place).expanduser()
    if path.exists():
        return path
    from alignlab.hub.hint import fetch_hint

    cached = _in_cache(place)
    if cached is None:
        raise ValueError(f"{place}: no file, no folder, and not in the hub's cache{fetch_hint(place)}")
    return cached


def _in_cache(name: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError, OSError):
        return None


def _within(folder: Path) -> Path:
    """The file of a folder that says most; the folder itself where transformers must put several together."""
    for inner in (folder, folder / "export"):
        for pattern in ("tokenizer.json", "tokenizer.model", "*.model", "*.tiktoken"):
            if files := sorted(inner.glob(pattern)):
                return files[0]
        if (inner / "vocab.txt").is_file():
            return inner / "vocab.txt"
        if (inner / "tokenizer_config.json").is_file() or (inner / "vocab.json").is_file():
            return inner
    raise ValueError(f"{folder} holds no tokenizer.json, *.model, *.tiktoken, vocab.txt or tokenizer_config.json")


def _opener(path: Path) -> object:
    """By content, then by name: Llama 3's tokenizer.model is a file of ranks."""
    if path.is_dir():
        return open_slow
    with path.open("rb") as file:
        start = file.read(256)
    if path.name.endswith((".txt.gz", ".bpe")) or path.name == "merges.txt":
        return open_clip
    if path.suffix == ".txt":
        return open_wordpiece
    if start.lstrip().startswith((b"{", b"export default {")):
        return open_ranks if b"bpe_ranks" in path.read_bytes() else open_fast
    first = start.split(b"\n")[0].split()
    if len(first) == 2 and first[1].isdigit():
        return open_ranks
    if start[:1] == b"\n":  # field 1 of a protocol buffer
        return open_sentencepiece
    raise ValueError(f"{path}: neither tokenizer.json, SentencePiece model, rank file, vocab.txt nor CLIP's merges")
