"""Plain text to pre-train on, or tokens of it: documents as rows of equally many tokens, behind `data=text`.

Legend: N pieces of documents.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from alignlab.data.language.batches import Split, TextRows, TokenStore
from alignlab.data.language.pretraining.own_tokenizer import trained_tokenizer
from alignlab.data.language.pretraining.packed_rows import PackedRows, every, stretch_of
from alignlab.data.language.pretraining.packed_tokens import PackedTokens, is_packed
from alignlab.data.language.rated_reviews import of_split, rated_reviews
from alignlab.data.language.rendering import Renderer
from alignlab.data.language.rows import content, read_jsonl
from alignlab.data.language.tokenizer import built_in_tokenizer
from alignlab.files.text import read_text
from alignlab.models.language.paths import tokenizer_in

log = logging.getLogger(__name__)
KINDS = (".txt", ".jsonl")
_AT_ONCE = 512  # documents that are cut into tokens together


class PlainText:
    """Documents, cut into pieces of at most `max_length` tokens; rows hold as many pieces as have room, which don't
    see each other.

    A document begins with the tokenizer's begin of text, or where it has none with the end of text, and ends with the
    latter. The tokenizer is one that is trained on the training documents, but for the built-in reviews.

    Args:
        path: a .txt file (one document), a .jsonl file (its column `text`, a document a line), or a folder of such,
            its folders included; or a folder that `alignlab corpus pack` wrote, whose tokens stay on the disk
            (`PackedRows`); None: the built-in movie and product reviews.
        val_path: held-out documents; None holds out `val_share` of them by a hash, of a single document its end.
        mask: "prefix" marks a beginning of each piece, of a random length, as what is read and not predicted.
        split_seed: salts the hash, and draws the lengths.
        val_share: see `val_path`.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        val_path: str | None = None,
        mask: Literal["causal", "prefix"] = "causal",
        split_seed: int,
        val_share: float,
    ) -> None:
        if path is None and val_path is not None:
            raise ValueError("val_path is given, path isn't: the built-in reviews hold out their own")
        if mask not in ("causal", "prefix"):
            raise ValueError(f"mask={mask} is none of causal, prefix")
        self._path, self._val_path, self._mask = path, val_path, mask
        self._split_seed, self._val_share = split_seed, val_share
        self._read: dict[str, list[str]] = {}
        self._packed: dict[str, PackedTokens] = {}

    def tokenizer(self, vocab_size: int) -> PreTrainedTokenizerBase:
        """Byte-level BPE of the training documents; of the built-in ones the house's, of packed ones what was kept."""
        if self._path is None:
            return built_in_tokenizer(vocab_size)
        if is_packed(self._path):
            packed = self._tokens("path")
            if packed.tokenizer is None:
                made = packed.index["tokenizer"]["place"]
                raise ValueError(
                    f"path={self._path} was packed with {made}; set tokenizer to a model that has the same"
                )
            return tokenizer_in(packed.tokenizer)
        return trained_tokenizer(self.documents("train"), vocab_size)

    def documents(self, split: Split) -> list[str]:
        """The documents of a split. Raises ValueError where there is none, or one can't be read."""
        if self._path is None:
            both = (rated_reviews(name).part(split, self._split_seed, self._val_share) for name in REVIEWS)
            return [text for reviews in both for text in reviews.texts]
        if self._val_path is not None:
            return self._of("path" if split == "train" else "val_path")
        documents = self._of("path")
        if len(documents) == 1:
            return [_part_of(documents[0], split, self._val_share)]
        chosen = of_split(documents, split, lambda text: text, self._split_seed, self._val_share)
        if not chosen:
            raise ValueError(
                f"path={self._path}: none of {len(documents)} documents is for {split}; set val_path or val_share"
            )
        return chosen

    def rows(self, split: Split, renderer: Renderer, seed: int) -> TextRows:
        """Raises ValueError as `documents` does."""
        own = split == "val" and self._val_path is not None
        key = "val_path" if own else "path"
        if is_packed(self._place(key) or ""):
            return self._packed_rows(split, key, renderer, seed)
        store = _stored(self.documents(split), renderer)
        if self._mask == "prefix":
            drawn = np.random.default_rng([self._split_seed, split == "val"])
            store = _with_prefixes(store, drawn.random(len(store)) if split == "train" else np.full(len(store), 0.5))
        tokens = int(store.lengths.sum())
        log.info("%s: %d pieces of documents, %d tokens", split, len(store), tokens)
        return TextRows(store, seed, renderer.max_length)

    def made_with(self) -> dict[str, str]:
        """The fingerprint of the tokenizer behind each setting that names packed tokens."""
        places = {key: self._place(key) for key in ("path", "val_path")}
        return {
            f"{key}={place}": self._tokens(key).fingerprint for key, place in places.items() if is_packed(place or "")
        }

    def _packed_rows(self, split: Split, key: str, renderer: Renderer, seed: int) -> PackedRows:
        packed, tokenizer = self._tokens(key), renderer.tokenizer
        if (largest := packed.index["largest id"]) >= len(tokenizer):
            raise ValueError(f"{key}={self._place(key)} holds the id {largest}; the tokenizer has {len(tokenizer)} ids")
        try:
            whole = self._val_path is not None
            stretch = every(packed) if whole else stretch_of(packed, split, self._split_seed, self._val_share)
        except ValueError as error:
            raise ValueError(f"{key}={self._place(key)}: {error}") from error
        held = {"half": split == "val", "draw": self._split_seed, "mask": self._mask}
        rows = PackedRows(packed, stretch, tokenizer, renderer.max_length, seed, **held)
        renderer.longest = max(renderer.longest, rows.longest)
        log.info("%s: %d documents, %d tokens", split, len(stretch.documents), rows.row_lengths(0).sum())
        return rows

    def _tokens(self, key: str) -> PackedTokens:
        if key not in self._packed:
            self._packed[key] = PackedTokens(self._place(key))
        return self._packed[key]

    def _place(self, key: str) -> str | None:
        return {"path": self._path, "val_path": self._val_path}[key]

    def _of(self, key: Literal["path", "val_path"]) -> list[str]:
        if key not in self._read:
            path = self._place(key)
            self._read[key] = [text for text in documents_of(path, key) if text.strip()]
            if not self._read[key]:
                raise ValueError(f"{key}={path}: no text is in there")
        return self._read[key]


REVIEWS = ("movie_reviews", "product_reviews")


def documents_of(path: str, key: str = "path") -> Iterator[str]:
    """The documents of a file or of all files below a folder, by their names; `key` is what gave the path.

    Raises:
        ValueError: nothing is there, or a file can't be read as what its name says.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        files = sorted(file for file in place.rglob("*") if file.suffix in KINDS and file.is_file())
        if not files:
            raise ValueError(f"{key}={path}: no {' or '.join(KINDS)} file is in there")
        for file in files:
            yield from documents_of(str(file), key)
    elif place.suffix not in KINDS:
        raise ValueError(f"{key}={path}: plain text is a {' or '.join(KINDS)} file, or a folder of such")
    elif place.suffix == ".txt":
        yield read_text(place, key)
    else:
        for where, row in read_jsonl(place, key):
            if not isinstance(row.get("text"), str):
                raise ValueError(f"{where}: no column text; there are {', '.join(row) or 'none'}")
            try:
                yield content(row["text"], "text")
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error


def _part_of(document: str, split: Split, val_share: float) -> str:
    """The beginning of a document for training, its last lines to validate on."""
    border = int(len(document) * (1 - val_share))
    line = document.find("\n", border) + 1
    border = line if 0 < line < len(document) else border
    return document[:border] if split == "train" else document[border:]


def _stored(documents: Sequence[str], renderer: Renderer) -> TokenStore:
    """Documents as ids, in pieces of at most `max_length`."""
    tokenizer, most = renderer.tokenizer, renderer.max_length
    begin = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    ids, lengths = [np.zeros(0, np.int32)], []
    for at in range(0, len(documents), _AT_ONCE):
        for encoded in renderer.written.encode_all(documents[at : at + _AT_ONCE]):
            whole = np.array([begin, *encoded, tokenizer.eos_token_id], np.int32)
            if len(whole) % most == 1 and len(whole) > 1:  # a piece of one token predicts nothing
                whole = whole[:-1]
            ids.append(whole)
            lengths += [min(most, len(whole) - start) for start in range(0, len(whole), most)]
    flat = np.concatenate(ids)
    renderer.longest = max(renderer.longest, *lengths)
    return TokenStore.of(flat, np.ones(len(flat), np.bool_), np.array(lengths, np.int64))


def _with_prefixes(store: TokenStore, shares: Sequence[float]) -> TokenStore:
    """A part of each piece's tokens, all but one at most, is no response."""
    inside = np.floor(shares * store.lengths).astype(np.int64).clip(0, store.lengths - 1)
    ends = np.cumsum(store.lengths)
    place = np.arange(ends[-1]) - np.repeat(ends - store.lengths, store.lengths)
    every = np.concatenate([store.ids(i) for i in range(len(store))])
    return TokenStore.of(every, place >= np.repeat(inside, store.lengths), store.lengths)
