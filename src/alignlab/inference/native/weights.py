"""Tensors by name, whole or in part: read from a folder's safetensors files, or taken from a live model without a
copy.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from alignlab.files.checksums import check_sums
from alignlab.files.safetensors import safetensors_header

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "I32": torch.int32,
    "I64": torch.int64,
    "BOOL": torch.bool,
}


class Weights(Protocol):
    """Where a model's tensors come from."""

    def __contains__(self, name: str) -> bool: ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of the whole tensor."""
        ...

    def read(self, name: str, dim: int = 0, start: int = 0, stop: int | None = None) -> Tensor:
        """The tensor, or the part from `start` to `stop` along `dim`."""
        ...


class WeightFiles:
    """Safetensors files of a folder, read with `pread` straight into the tensors they become.

    No memory map: pages that were touched through one would count as resident beside the tensor, and twice the weights
    would be the peak of loading. A part along dimension 0 reads its own bytes only.
    """

    def __init__(self, folder: str | Path, pattern: str = "model*.safetensors") -> None:
        self.folder = Path(folder)
        files = sorted(self.folder.glob(pattern)) or sorted(self.folder.glob("*.safetensors"))
        if not files:
            raise ValueError(f"model={folder}: there is no *.safetensors file; save the model with save_pretrained")
        check_sums(self.folder, "", {file.name for file in files}.__contains__)
        self._files: list[int] = []
        self._places: dict[str, tuple[int, torch.dtype, tuple[int, ...], int]] = {}
        for file in files:
            descriptor = os.open(file, os.O_RDONLY)
            self._files.append(descriptor)
            begin, entries = safetensors_header(file)
            for name, entry in entries.items():
                if entry["dtype"] not in DTYPES:
                    raise ValueError(
                        f"{file}: {name} is of type {entry['dtype']}, which isn't read here; there are "
                        f"{', '.join(DTYPES)}"
                    )
                place = begin + entry["data_offsets"][0]
                self._places[name] = (descriptor, DTYPES[entry["dtype"]], tuple(entry["shape"]), place)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    @property
    def names(self) -> list[str]:
        """Names of all tensors."""
        return list(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._place(name)[2]

    def _place(self, name: str) -> tuple[int, torch.dtype, tuple[int, ...], int]:
        if name not in self._places:
            raise ValueError(
                f"model={self.folder}: there is no tensor {name}; the files don't belong to this config.json"
            )
        return self._places[name]

    def read(self, name: str, dim: int = 0, start: int = 0, stop: int | None = None) -> Tensor:
        descriptor, dtype, shape, place = self._place(name)
        if dim != 0:
            stop = shape[dim] if stop is None else stop
            return self.read(name).narrow(dim, start, stop - start)
        rows = shape[0] if shape else 1
        stop = rows if stop is None else stop
        row_bytes = dtype.itemsize * math.prod(shape[1:])
        part = torch.empty((stop - start, *shape[1:]) if shape else (), dtype=dtype)
        if part.numel():
            _read_into(descriptor, part, place + start * row_bytes)
        return part

    def read_into(self, name: str, target: Tensor) -> None:
        """The whole tensor into memory that is there already."""
        descriptor, dtype, _, place = self._places[name]
        if target.dtype == dtype and target.is_contiguous():
            _read_into(descriptor, target, place)
        else:
            target.copy_(self.read(name))

    def close(self) -> None:
        """Close the files."""
        for descriptor in self._files:
            os.close(descriptor)
        self._files = []


def _read_into(descriptor: int, tensor: Tensor, place: int) -> None:
    """Fill a contiguous tensor from a file; releases the interpreter lock while it reads."""
    view = memoryview(tensor.view(-1).view(torch.uint8).numpy())
    done = 0
    while done < len(view):
        count = os.preadv(descriptor, [view[done:]], place + done)
        if count == 0:
            raise ValueError("a safetensors file ends before its last tensor: it was not copied completely")
        done += count


class StoredRows:
    """Rows of stored matrices, one below the other, that are read when they are asked for: what is made of them a few
    at a time never holds all.

    Has the `shape`, `dtype`, `len` and slices of the tensor that it stands for. `parts`: names with the first row and
    the one after the last (None: all).
    """

    def __init__(self, weights: Weights, dtype: torch.dtype, parts: Sequence[tuple[str, int, int | None]]) -> None:
        self._weights, self.dtype = weights, dtype
        self._parts = [(name, start, weights.shape(name)[0] if stop is None else stop) for name, start, stop in parts]
        count = sum(stop - start for _, start, stop in self._parts)
        self.shape = torch.Size((count, *weights.shape(parts[0][0])[1:]))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Tensor:
        first, last, _ = rows.indices(len(self))
        blocks, above = [], 0
        for name, start, stop in self._parts:
            low, high = max(first - above, 0) + start, min(last - above + start, stop)
            if low < high:
                blocks.append(self._weights.read(name, 0, low, high).to(self.dtype))
            above += stop - start
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


class LiveWeights:
    """Parameters of a model in memory: views, never copies, so that an optimizer's updates are seen at once.

    A PEFT model shows the names of its base; the adapters' own tensors are read by `adapters.py`.
    """

    def __init__(self, model: nn.Module) -> None:
        self._tensors: dict[str, Tensor] = {}
        self.changes = False  # whether any of them is being trained; adapters may be all the same
        for name, tensor in model.named_parameters(remove_duplicate=False):
            if ".lora_" not in name:
                self._tensors[plain_name(name)] = tensor.detach()
                self.changes |= tensor.requires_grad

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(iter(self._tensors.values())).device

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def read(self, name: str, dim: int = 0, start: int = 0, stop: int | None = None) -> Tensor:
        tensor = self._tensors[name]
        return tensor if start == 0 and stop in (None, tensor.shape[dim]) else tensor.narrow(dim, start, stop - start)


def plain_name(name: str) -> str:
    """A parameter's name as in the base model's file: without PEFT's wrappers."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")
