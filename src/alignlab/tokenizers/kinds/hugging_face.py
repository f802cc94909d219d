"""Tokenizers that Hugging Face's `tokenizers` (Rust) runs, and those that only `transformers` (Python) can."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers
from tokenizers import Tokenizer

from alignlab.tokenizers.kinds.alphabet import pieces_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Fast:
    """A `tokenizers.Tokenizer`, without the padding and the truncation that its file may ask for.

    Args:
        tokenizer: what encodes.
        spec: its JSON; made from `tokenizer` where it isn't given.
        kind: how to call it; default: from its model.
        specials: special tokens around a text; default: by trying.
    """

    implementation = f"tokenizers {tokenizers.__version__} (Rust)"

    def __init__(
        self, tokenizer: Tokenizer, spec: dict[str, Any] | None = None, kind: str = "", specials: int | None = None
    ) -> None:
        self.notes: list[str] = []
        self.spec = json.loads(tokenizer.to_str()) if spec is None else spec
        if tokenizer.padding is not None or tokenizer.truncation is not None:
            self.notes.append("padding or truncation in its file was switched off")
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True  # `<s>` in a text is text
        self.tokenizer = tokenizer
        self.style = style_of(self.spec)
        self.kind = kind or f"{self.spec['model']['type']}, {self.style}"
        self.size = tokenizer.get_vocab_size(with_added_tokens=True)
        unknown = self.spec["model"].get("unk_token")
        unknown = self.spec["model"]["vocab"][i][0] if (i := self.spec["model"].get("unk_id")) is not None else unknown
        self.unknown = None if unknown is None else tokenizer.token_to_id(unknown)
        self.specials = len(tokenizer.encode("a").ids) - len(self.encode(["a"])[0]) if specials is None else specials

    def read_specials(self) -> None:
        """From now on `<s>` in a text is the special token: a rendered chat holds such."""
        self.tokenizer.encode_special_tokens = False

    @cached_property
    def pieces(self) -> dict[int, bytes]:
        added = {token["id"] for token in self.spec.get("added_tokens", ())}
        if self.unknown is not None:
            added.add(self.unknown)
        return pieces_of(self.tokenizer.get_vocab(with_added_tokens=False), self.style, added)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [row.ids for row in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        return self.tokenizer.decode_batch([list(row) for row in rows], skip_special_tokens=False)


def style_of(spec: dict[str, Any]) -> str:
    """How a tokenizer.json spells bytes: as told by its pre-tokenizer and decoder."""
    text = json.dumps([spec.get("pre_tokenizer"), spec.get("decoder"), spec.get("normalizer")], ensure_ascii=False)
    if "ByteLevel" in text:
        return "bytes"
    return "sentencepiece" if "▁" in text or "Metaspace" in text else "plain"


def open_fast(file: Path) -> Fast:
    """A tokenizer.json."""
    text = file.read_text(encoding="utf-8")
    try:
        spec = json.loads(text)
        return Fast(Tokenizer.from_str(text), spec)
    except Exception as error:  # the Rust library raises bare exceptions
        raise ValueError(f"{file} is no tokenizer.json: {first_line(error)}") from error


class Slow:
    """A tokenizer in Python, by transformers; one text at a time."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        import transformers

        self.tokenizer = tokenizer
        self.implementation = f"transformers {transformers.__version__} (Python)"
        self.kind = type(tokenizer).__name__
        self.size = len(tokenizer)
        self.unknown = tokenizer.unk_token_id
        self.specials = tokenizer.num_special_tokens_to_add()
        self.notes: list[str] = []

    @cached_property
    def pieces(self) -> dict[int, bytes]:
        names = self.tokenizer.get_vocab()
        special = set(self.tokenizer.added_tokens_decoder) | set(self.tokenizer.all_special_ids)
        ordinary = {name: index for name, index in names.items() if index not in special}
        if len(ordinary) == 256 and all(len(name) == 1 and ord(name) < 256 for name in ordinary):  # ByT5
            return {index: bytes([ord(name)]) for name, index in ordinary.items()}
        style = "sentencepiece" if any("▁" in name for name in names) else "bytes" if "Ġ" in names else "plain"
        return pieces_of(ordinary, style, set())

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.tokenizer.encode(text, add_special_tokens=False) for text in texts]

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        return [self.tokenizer.decode(row, clean_up_tokenization_spaces=False) for row in rows]


def open_slow(folder: Path) -> "Slow | Fast":
    """A folder that `AutoTokenizer` reads; the Rust one inside is taken out where there is one."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, use_fast=False, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # whatever a foreign folder brings about
        raise ValueError(f"{folder}: transformers can't read its tokenizer ({first_line(error)})") from error
    return of_transformers(tokenizer)


def of_transformers(tokenizer: "PreTrainedTokenizerBase") -> Slow | Fast:
    """A tokenizer that transformers has read; it is left as it is."""
    inner = getattr(tokenizer, "backend_tokenizer", None)
    return Slow(tokenizer) if inner is None else Fast(Tokenizer.from_str(inner.to_str()))


def first_line(error: Exception) -> str:
    """An exception's message, as one line without a full stop."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].removesuffix(".")
