"""What a file is, by its content, and why one that holds no weights is refused."""

import tarfile
import zipfile
from functools import lru_cache
from pathlib import Path

_OTHERS = (
    (b"\x89HDF", "an HDF5 file, as Keras writes it; save the weights with torch.save or as safetensors"),
    (b"GGUF", "a GGUF file; language models read it by its path"),
    (b"\x93NUMPY", "a NumPy array; save the weights with torch.save or as safetensors"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"version https://git-lfs", "a Git LFS pointer and not the file itself; fetch it with `git lfs pull`"),
    (b"<", "a web page and not weights: a download that went wrong"),
    (b"{", "a text file and not weights"),
)


def few(names: list[str]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def line_of(error: BaseException) -> str:
    """An exception's text in one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def checked_archive(path: Path) -> tuple[list[str], str | None]:
    """The names in a zip archive, as torch writes them, and the first whose bytes differ from their check sum.

    Read once a process, however many doors ask. Raises ValueError for what is no whole archive.
    """
    stat = path.stat()
    return _checked(str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=256)
def _checked(path: str, *_: int) -> tuple[list[str], str | None]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist(), archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, zipfile.zlib.error) as error:
        raise ValueError(line_of(error)) from error


def is_of_torch(path: Path, what: str) -> bool:
    """True for torch's zip files, whole ones. Raises ValueError for other ones."""
    try:
        names, broken = checked_archive(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{what}: {path} is damaged ({line_of(error)}); fetch or write it again") from error
    if broken:
        raise ValueError(f"{what}: {path} is damaged in {broken}; fetch or write it again")
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        raise ValueError(
            f"{what}: {path} is a TorchScript archive, a program with weights; save torch.jit.load(FILE).state_dict() "
            "where you trust it"
        )
    if not any(name.endswith("data.pkl") for name in names):
        raise ValueError(f"{what}: {path} is a zip archive that torch didn't write ({few(names)}); unpack it first")
    return True


def kind_of_file(path: Path, head: bytes) -> str:
    """What a file is that holds no weights, or none that are read here."""
    if not head:
        return "is empty"
    if head.startswith(b"PK"):
        return "is cut off: the end of a zip archive, and so of a torch file, is missing; fetch or write it again"
    if head[257:262] == b"ustar" or _is_tar(path):
        with tarfile.open(path) as archive:
            names = archive.getnames()
        if {"pickle", "storages", "tensors"} <= set(names):
            return (
                "is a tar file of torch before 0.1.10, which can't be read without running code that is in it; "
                "save it again with torch.save"
            )
        return f"is a tar archive ({few(names)}); unpack it first"
    for start, kind in _OTHERS:
        if head.lstrip()[: len(start)] == start:
            return f"is {kind}"
    if head[:1] == b"\x80":
        return (
            "is a pickle that torch.save didn't write; reading it could run code: "
            "save the weights with torch.save or as safetensors"
        )
    return "is neither a torch file nor safetensors: it is damaged, or something else"


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except Exception:  # tarfile takes many things for tar files before it fails
        return False
