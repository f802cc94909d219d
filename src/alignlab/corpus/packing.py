"""Texts as tokens in shards that are mapped into memory; `data/language/pretraining/packed_tokens.py` reads them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignlab.corpus.fingerprints import cleaned
from alignlab.corpus.looking import batched
from alignlab.corpus.sources import WHOLE, Reader, detected, sources_of
from alignlab.data.language.pretraining.own_tokenizer import trained_tokenizer
from alignlab.data.language.pretraining.packed_tokens import INDEX, TOKENIZER
from alignlab.files.writing import replaced, write_text
from alignlab.tokenizers.fingerprint import fingerprint
from alignlab.tokenizers.kinds.tokenizer import TextTokenizer
from alignlab.tokenizers.opening import file_of, open_tokenizer

Row = dict[str, Any]


def pack(
    places: Sequence[Path],
    tokenizer: str | None,
    target: Path,
    *,
    vocab_size: int | None = None,
    end: int | None = None,
    shard_tokens: int = 100_000_000,
) -> Row:
    """Writes the texts of files as tokens; gives what `index.json` says.

    Rows that can't be read are counted and left out. A folder of shards that isn't complete has no index. A tokenizer
    that transformers reads lies in `target/tokenizer` afterwards.

    Args:
        tokenizer: what `alignlab tokenizers` opens; None trains byte-level BPE on the texts' first 50 million letters.
        vocab_size: ids of a tokenizer that is trained.
        end: id put behind every document; None leaves it to who reads them, who knows the end of text.
        shard_tokens: a shard is begun anew beyond so many.

    Raises:
        ValueError: `target` has shards already; the tokenizer can't be read; a number below its least; both or
            neither of `tokenizer` and `vocab_size`.
    """
    if shard_tokens < 1:
        raise ValueError(f"--shard-tokens is {shard_tokens}; it must be at least 1")
    if (target / INDEX).exists():
        raise ValueError(f"{target} holds shards already; name another folder, or remove it")
    opened = _opened(places, tokenizer, vocab_size, target)
    largest = max([*opened.pieces, opened.size - 1, end or 0])
    kind = np.dtype(np.uint16 if largest < 1 << 16 else np.uint32)
    shards, held, keys = [], [], []
    counts = {"tokens": 0, "left out": 0, "largest": end or 0}
    tail = np.array([] if end is None else [end], kind)
    for texts in _texts(places, counts):
        for text, ids in zip(texts, opened.encode(texts), strict=True):
            held.append(np.concatenate([np.array(ids, kind), tail]))
            keys.append(_key(text))
            counts["tokens"] += len(held[-1])
            counts["largest"] = max(counts["largest"], max(ids, default=0))
            if counts["tokens"] >= shard_tokens:
                shards.append(_write(target, len(shards), held, keys))
                held, keys, counts["tokens"] = [], [], 0
    if held:
        shards.append(_write(target, len(shards), held, keys))
    if not shards:
        raise ValueError("there is nothing to pack: no row has a text")
    index = {
        "tokenizer": {"place": str(tokenizer or TOKENIZER), "fingerprint": fingerprint(opened.pieces), "end": end},
        "dtype": kind.name,
        "shards": shards,
        "tokens": sum(shard["tokens"] for shard in shards),
        "documents": sum(shard["documents"] for shard in shards),
        "largest id": counts["largest"],
        "left out": counts["left out"],
        "corpora": cleaned(list(map(str, places))),
    }
    write_text(target / INDEX, json.dumps(index, ensure_ascii=False, indent=1) + "\n")
    return index


def _opened(places: Sequence[Path], tokenizer: str | None, vocab_size: int | None, target: Path) -> TextTokenizer:
    if (tokenizer is None) == (vocab_size is None):
        raise ValueError("one of --tokenizer and --vocab-size says how texts become tokens")
    return _trained(places, vocab_size, target) if tokenizer is None else _kept(tokenizer, target)


def _trained(places: Sequence[Path], size: int, target: Path) -> TextTokenizer:
    texts = (text for batch in _texts(places, {"left out": 0}) for text in batch)
    trained_tokenizer(texts, size).save_pretrained(target / TOKENIZER)
    return open_tokenizer(str(target / TOKENIZER))[0]


def _kept(place: str, target: Path) -> TextTokenizer:
    """The tokenizer at a place; a copy of it lies with the tokens, where transformers reads it."""
    opened, _ = open_tokenizer(place)
    file = file_of(place)
    folder = None if file is None else file if file.is_dir() else file.parent
    if folder is not None and (folder / "tokenizer_config.json").is_file():
        from alignlab.models.language.paths import tokenizer_in  # transformers

        tokenizer_in(folder).save_pretrained(target / TOKENIZER)
    return opened


def _key(text: str) -> bytes:
    """A hash of a text's words in lower case."""
    return hashlib.blake2b(" ".join(text.lower().split()).encode(), digest_size=8).digest()


def _texts(places: Sequence[Path], counts: dict[str, int]) -> Iterator[list[str]]:
    for source in sources_of(places):
        for documents in batched(Reader(source, detected(source)).documents(WHOLE)):
            counts["left out"] += sum(document.wrong is not None for document in documents)
            if texts := [document.text for document in documents if document.wrong is None]:
                yield texts


def _write(target: Path, number: int, held: Sequence[np.ndarray], keys: Sequence[bytes]) -> Row:
    name = f"{number:05d}.npy"
    for file, array in (
        (f"{number:05d}.ends.npy", np.cumsum([len(one) for one in held])),
        (f"{number:05d}.keys.npy", np.frombuffer(b"".join(keys), "<u8")),
        (name, np.concatenate(held)),
    ):
        with replaced(target / file) as temporary, temporary.open("wb") as out:
            np.save(out, array)
    return {"file": name, "tokens": sum(map(len, held)), "documents": len(held)}
