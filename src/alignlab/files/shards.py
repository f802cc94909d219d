"""Folders that sharding strategies write, looked at before torch or DeepSpeed reads them: both unpickle whatever is in
their index and their values, and a pickle can run code.
"""

import io
import pickle
import warnings
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch

from alignlab.files.kinds import line_of

_MODULES = ("torch.distributed.checkpoint.", "torch.distributed._shard.", "torch.distributed.tensor.")
_PLAIN = {
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("pathlib", "PosixPath"),
    ("pathlib", "WindowsPath"),
    ("pathlib._local", "PosixPath"),
}
# What DeepSpeed's files hold besides tensors and plain values.
_OF_DEEPSPEED = {
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.utils.tensor_fragment.fragment_address",
}


def check_shards(folder: Path, what: str) -> None:
    """Looks through a folder of torch's distributed checkpoints.

    Args:
        what: the key or command that the folder was given to, for messages.

    Raises:
        ValueError, one line: its index or a value in it would run something, or can't be read.
    """
    index = folder / ".metadata"
    try:
        with index.open("rb") as file:
            known = _Index(file).load()
        held = {place.fqn: entry for place, entry in known.storage_data.items()}
        for name, kind in known.state_dict_metadata.items():
            if type(kind).__name__ == "BytesStorageMetadata" and name in held:
                entry = held[name]
                with (folder / entry.relative_path).open("rb") as file:
                    file.seek(entry.offset)
                    torch.load(io.BytesIO(file.read(entry.length)), map_location="cpu", weights_only=True)
    except _Refused as error:
        raise ValueError(
            f"{what}: {index} names {error}, which is no part of a checkpoint; nothing of it was run"
        ) from error
    except pickle.UnpicklingError as error:
        raise ValueError(f"{what}: {folder} can't be read without running code that is in it") from error
    except Exception as error:  # whatever damaged pickles lead to
        raise ValueError(f"{what}: {index} is damaged ({line_of(error)})") from error


def check_zero(folder: Path, what: str) -> None:
    """Looks through a folder that DeepSpeed wrote, as `check_shards`."""
    for file in sorted(folder.rglob("*.pt")):
        try:
            names = set(torch.serialization.get_unsafe_globals_in_checkpoint(file))
        except Exception as error:
            raise ValueError(f"{what}: {file} is damaged ({line_of(error)})") from error
        if strange := sorted(names - _OF_DEEPSPEED):
            raise ValueError(
                f"{what}: {file} names {strange[0]}, which is no part of a checkpoint; nothing of it was run"
            )


class _Refused(Exception):
    """A name that doesn't belong into an index."""


class _Index(pickle.Unpickler):
    """Makes what an index of torch's is made of, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PLAIN and not module.startswith(_MODULES) and module != "torch":
            raise _Refused(f"{module}.{name}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind = super().find_class(module, name)
        if (module, name) in _PLAIN or isinstance(kind, torch.dtype):
            return kind
        if not isinstance(kind, type) or not (is_dataclass(kind) or issubclass(kind, Enum)):
            raise _Refused(f"{module}.{name}")
        return kind
