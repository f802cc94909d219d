"""Safetensors files: whole, or their header alone."""

import json
import math
from pathlib import Path

from torch import Tensor

from alignlab.files.checksums import check_beside
from alignlab.files.kinds import line_of

_BYTES = {
    "F64": 8,
    "I64": 8,
    "F32": 4,
    "I32": 4,
    "F16": 2,
    "BF16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}  # an element of safetensors' types


def safetensors_header(path: Path) -> tuple[int, dict[str, dict]]:
    """Where the tensors of a safetensors file begin, and name -> {dtype, shape, data_offsets}, checked against the
    file's size.

    Raises ValueError, one line, for a damaged file.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= size - 8:
                raise ValueError("its header is longer than the file")
            entries = json.loads(file.read(length))
        entries.pop("__metadata__", None)
        for name, entry in entries.items():
            first, last = entry["data_offsets"]
            if not (isinstance(entry["shape"], list) and all(isinstance(n, int) and n >= 0 for n in entry["shape"])):
                raise ValueError(f"{name} has no shape")
            if last - first != math.prod(entry["shape"]) * _BYTES.get(
                entry["dtype"], (last - first) / max(1, math.prod(entry["shape"]))
            ):
                raise ValueError(f"{name} has {last - first} bytes, which isn't {entry['shape']} of {entry['dtype']}")
            if not 0 <= first <= last <= size - 8 - length:
                raise ValueError(f"{name} lies outside of it: it was not copied completely")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is a damaged safetensors file ({line_of(error)}); fetch or write it again") from error
    return 8 + length, entries


def read_safetensors(path: Path, what: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_beside(path, what)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{what}: {path} is a damaged safetensors file ({line_of(error)}); fetch or write it again"
        ) from error
