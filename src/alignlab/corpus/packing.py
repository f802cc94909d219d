"""Texts as tokens in shards that are mapped into memory: numbers of a fixed width, and where documents end.

A folder holds `00000.npy`, ... (tokens of whole documents, one behind the other, uint16 or uint32), `00000.ends.npy`
(int64: where each document ends in it) and `index.json`, which is written last.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignlab.corpus.looking import batched
from alignlab.corpus.sources import WHOLE, Reader, detected, sources_of
from alignlab.files.writing import replaced, write_text
from alignlab.tokenizers.fingerprint import fingerprint
from alignlab.tokenizers.opening import open_tokenizer

INDEX = "index.json"
Row = dict[str, Any]


def pack(
    places: Sequence[Path], tokenizer: str, target: Path, *, end: int | None = None, shard_tokens: int = 100_000_000
) -> Row:
    """Writes the texts of files as tokens; gives what `index.json` says.

    Rows that can't be read are counted and left out. A folder of shards that isn't complete has no index.

    Args:
        tokenizer: what `alignlab tokenizers` opens.
        end: id put behind every document.
        shard_tokens: a shard is begun anew beyond so many.

    Raises:
        ValueError: `target` has an index already; the tokenizer can't be read; a number below its least.
    """
    if shard_tokens < 1:
        raise ValueError(f"--shard-tokens is {shard_tokens}; it must be at least 1")
    if (target / INDEX).exists():
        raise ValueError(f"{target} holds shards already; name another folder, or remove it")
    opened, _ = open_tokenizer(tokenizer)
    largest = max([*opened.pieces, end or 0])
    kind = np.dtype(np.uint16 if largest < 1 << 16 else np.uint32)
    shards: list[Row] = []
    held: list[np.ndarray] = []
    counts = {"tokens": 0, "left out": 0}
    tail = np.array([] if end is None else [end], kind)
    for texts in _texts(places, counts):
        for ids in opened.encode(texts):
            held.append(np.concatenate([np.array(ids, kind), tail]))
            counts["tokens"] += len(held[-1])
            if counts["tokens"] >= shard_tokens:
                shards.append(_write(target, len(shards), held))
                held, counts["tokens"] = [], 0
    if held:
        shards.append(_write(target, len(shards), held))
    if not shards:
        raise ValueError("there is nothing to pack: no row has a text")
    index = {
        "tokenizer": {"place": str(tokenizer), "fingerprint": fingerprint(opened.pieces), "end": end},
        "dtype": kind.name,
        "shards": shards,
        "tokens": sum(shard["tokens"] for shard in shards),
        "documents": sum(shard["documents"] for shard in shards),
        "left out": counts["left out"],
    }
    write_text(target / INDEX, json.dumps(index, ensure_ascii=False, indent=1) + "\n")
    return index


def _texts(places: Sequence[Path], counts: dict[str, int]) -> Iterator[list[str]]:
    for source in sources_of(places):
        for documents in batched(Reader(source, detected(source)).documents(WHOLE)):
            counts["left out"] += sum(document.wrong is not None for document in documents)
            if texts := [document.text for document in documents if document.wrong is None]:
                yield texts


def _write(target: Path, number: int, held: Sequence[np.ndarray]) -> Row:
    name = f"{number:05d}.npy"
    for file, array in (
        (f"{number:05d}.ends.npy", np.cumsum([len(one) for one in held])),
        (name, np.concatenate(held)),
    ):
        with replaced(target / file) as temporary, temporary.open("wb") as out:
            np.save(out, array)
    return {"file": name, "tokens": sum(map(len, held)), "documents": len(held)}


class Packed:
    """Shards of `pack`, mapped into memory: `packed[n]` is the tokens of document n.

    Raises:
        ValueError: no index, or a shard that isn't as long as it says.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self.index: Row = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder} holds no packed tokens ({INDEX}: {error})") from error
        self._tokens, self._ends = [], []
        for shard in self.index["shards"]:
            tokens = np.load(folder / shard["file"], mmap_mode="r")
            if len(tokens) != shard["tokens"]:
                raise ValueError(f"{folder / shard['file']} has {len(tokens)} tokens; {INDEX} says {shard['tokens']}")
            self._tokens.append(tokens)
            self._ends.append(np.load(folder / shard["file"].replace(".npy", ".ends.npy"), mmap_mode="r"))
        self._firsts = np.cumsum([0, *map(len, self._ends)])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def __getitem__(self, document: int) -> np.ndarray:
        if not 0 <= document < len(self):
            raise IndexError(document)
        shard = int(np.searchsorted(self._firsts, document, "right")) - 1
        at, ends = document - int(self._firsts[shard]), self._ends[shard]
        return self._tokens[shard][int(ends[at - 1]) if at else 0 : int(ends[at])]
