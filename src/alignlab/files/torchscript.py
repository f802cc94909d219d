"""Weights out of a TorchScript archive, without the program in it: of its pickle only tensors, dicts and lists are
made.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignlab.files.kinds import line_of

_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def is_torchscript(path: Path) -> bool:
    """Whether a file is a zip archive with a program of TorchScript in it."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") or "/code/" in name for name in archive.namelist())


def read_torchscript(path: Path, what: str) -> dict[str, Tensor]:
    """Parameters and buffers of the module in an archive, by their names.

    Nothing in the archive is run. Raises ValueError, one line, for a damaged one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (listed,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            with archive.open(listed) as file:
                module = _Reader(file, archive, listed.removesuffix("data.pkl")).load()
    except Exception as error:  # whatever a damaged archive leads to
        raise ValueError(f"{what}: {path} is a damaged TorchScript archive ({line_of(error)})") from error
    return dict(_tensors(module))


class _Object:
    """What an object of any class becomes: its attributes."""

    def __new__(cls, *_: Any) -> "_Object":
        made = object.__new__(cls)
        made.state = {}
        return made

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


class _Reader(pickle.Unpickler):
    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self.archive, self.folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name.endswith("Storage"):
            return name
        if module == "torch.jit._pickle":
            return _first
        return _Object

    def persistent_load(self, saved: tuple) -> Tensor:
        _, kind, key, *_ = saved
        content = bytearray(self.archive.read(f"{self.folder}data/{key}"))
        return torch.frombuffer(content, dtype=_DTYPES[kind]) if content else torch.empty(0, dtype=_DTYPES[kind])


def _first(value: Any, *_: Any) -> Any:
    return value


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset).clone()


def _tensors(module: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in getattr(module, "state", {}).items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, _Object):
            yield from _tensors(value, f"{prefix}{name}.")
