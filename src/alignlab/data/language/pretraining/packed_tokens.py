"""Tokens that `alignlab corpus pack` wrote, mapped into memory: documents behind each other in shards.

A folder holds `00000.npy`, ... (tokens of whole documents, uint16 or uint32), `00000.ends.npy` (int64: where each
document ends in it), `00000.keys.npy` (uint64: a hash of each document's text), `index.json`, and in `tokenizer/` what
the tokens were made with, where transformers reads that.
"""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

INDEX = "index.json"
TOKENIZER = "tokenizer"
_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # of SplitMix64, doi:10.1145/2660193.2660195


def is_packed(place: str | Path) -> bool:
    """Whether a path is a folder of packed tokens, complete or not."""
    return (Path(place).expanduser() / "00000.ends.npy").is_file()


class PackedTokens:
    """Documents as tokens: `packed[n]` is those of document n. Nothing is read until it is asked for.

    Raises:
        ValueError: no index, or a shard that isn't there or not as long as the index says.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        try:
            self.index: dict[str, Any] = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))
            shards = [(str(each["file"]), int(each["tokens"]), int(each["documents"])) for each in self.index["shards"]]
            self.end: int | None = self.index["tokenizer"]["end"]
            self.fingerprint = str(self.index["tokenizer"]["fingerprint"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{folder} holds no packed tokens, or not all of them ({INDEX}: {error})") from error
        self._names = [name.removesuffix(".npy") for name, *_ in shards]
        self._firsts = np.cumsum([0, *(documents for *_, documents in shards)])
        for number, (name, tokens, documents) in enumerate(shards):
            for suffix, held in (("", tokens), (".ends", documents), (".keys", documents)):
                found = len(self._mapped(number, suffix))
                if found != held:
                    what = "documents" if suffix else "tokens"
                    file = self.folder / name.replace(".npy", f"{suffix}.npy")
                    raise ValueError(f"{file} has {found} {what}; {INDEX} says {held}")

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def __getitem__(self, document: int) -> np.ndarray:
        return self.part(document, 0, None)

    def part(self, document: int, start: int, stop: int | None) -> np.ndarray:
        """Tokens `start` to `stop` of a document, of the width they are stored with."""
        if not 0 <= document < len(self):
            raise IndexError(document)
        shard = int(np.searchsorted(self._firsts, document, "right")) - 1
        tokens, ends = self._shards[shard]
        at = document - int(self._firsts[shard])
        first, last = int(ends[at - 1]) if at else 0, int(ends[at])
        return tokens[first + start : last if stop is None else min(last, first + stop)]

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64 tokens of each document."""
        return np.concatenate([np.diff(ends, prepend=0) for _, ends in self._shards])

    def held_out(self, seed: int, share: float) -> np.ndarray:
        """(N,) bool: documents to validate on, by their texts' hashes, salted with `seed`: copies go together."""
        keys = np.concatenate([self._mapped(number, ".keys") for number in range(len(self._names))])
        keys = keys + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
        for shift, factor in zip((30, 27), _MIX, strict=True):
            keys = (keys ^ keys >> np.uint64(shift)) * np.uint64(factor)
        return (keys ^ keys >> np.uint64(31)) < np.uint64(share * 2**64)

    @property
    def tokenizer(self) -> Path | None:
        """The folder of the tokenizer that they were made with, where it was kept."""
        folder = self.folder / TOKENIZER
        return folder if folder.is_dir() else None

    @cached_property
    def _shards(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(self._mapped(number, ""), self._mapped(number, ".ends")) for number in range(len(self._names))]

    def _mapped(self, shard: int, suffix: str) -> np.ndarray:
        file = self.folder / f"{self._names[shard]}{suffix}.npy"
        try:
            return np.load(file, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise ValueError(f"{file} can't be read ({error}); pack the texts again") from error

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_shards"}  # a worker maps them anew
