"""Tokenizers: trained on captions, or loaded by hub id or folder, and one way of turning captions into ids."""

import hashlib
import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from alignlab.types import Vocabulary

log = logging.getLogger(__name__)
SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def train_tokenizer(texts: Iterable[str], kind: str = "word", size: int = 4096) -> PreTrainedTokenizerFast:
    """Trains a lower-casing tokenizer on captions; the same texts give the same ids.

    `kind` is "word" (one id for each word, for captions from a small grammar) or "wordpiece" (BERT's, for natural language). `size` is
    the largest number of ids, special tokens included.
    """
    if kind not in ("word", "wordpiece"):
        raise ValueError(f"data.tokenizer_kind is {kind!r}; it must be 'word' or 'wordpiece'")
    special = list(SPECIAL_TOKENS.values())
    tokenizer = _untrained(models.WordLevel(unk_token="[UNK]") if kind == "word" else models.WordPiece())
    if kind == "word":
        trainer = trainers.WordLevelTrainer(vocab_size=size, special_tokens=special, show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
    else:
        texts = list(texts)
        # The trainer numbers inner letters in the order of a hash table, which differs between processes, and breaks ties between merges by
        # number. Given first and sorted, they have the same numbers everywhere.
        letters = sorted({letter for text in texts for letter in tokenizer.normalizer.normalize_str(text)} - {" "})
        special += [f"##{letter}" for letter in letters]
        trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=special, show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
        tokenizer = _untrained(models.WordPiece(tokenizer.get_vocab(), unk_token="[UNK]", max_input_chars_per_word=64))
        tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL_TOKENS)


def _untrained(model: models.Model) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def load_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Loads a tokenizer by hub id or from a local folder.

    Raises
    ------
    ValueError
        if there is none, or if it lacks a special token (padding, start, separator or mask) that the models need.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, use_fast=True)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"data.tokenizer={name!r} can't be loaded as hub id or folder: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(f"data.tokenizer={name!r} has no fast version (tokenizer.json)")
    missing = [token for token in SPECIAL_TOKENS if token != "unk_token" and getattr(tokenizer, token) is None]
    if missing:
        raise ValueError(f"data.tokenizer={name!r} has no {', '.join(missing)}; use one in the manner of BERT")
    return tokenizer


def vocabulary_of(tokenizer: PreTrainedTokenizerFast) -> Vocabulary:
    """What nets and losses need to know about a tokenizer."""
    return Vocabulary(
        len(tokenizer), tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id
    )


class CaptionEncoder:
    """Turns captions into ids `[CLS] x` (with `append_sep`: `[CLS] x [SEP]`), padded to the longest of the batch.

    The template without [SEP] is that of the ALBEF reference. `pad_to_multiple` rounds the length up, for hardware that prefers it.
    Longer captions are cut to `context_length` ids and counted in `num_long` of `num_seen`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        context_length: int,
        append_sep: bool = False,
        pad_to_multiple: int = 1,
    ) -> None:
        if context_length < 3:
            raise ValueError(f"data.context_length is {context_length}; it must be at least 3")
        if pad_to_multiple < 1:
            raise ValueError(f"data.pad_to_multiple is {pad_to_multiple}; it must be at least 1")
        self.tokenizer, self.context_length = tokenizer, context_length
        self.append_sep, self.pad_to_multiple = append_sep, pad_to_multiple
        self.vocabulary = vocabulary_of(tokenizer)
        self.num_seen, self.num_long = 0, 0
        self._rust = Tokenizer.from_str(
            tokenizer.backend_tokenizer.to_str()
        )  # a copy: its padding and truncation are ours to switch off
        self._rust.no_padding()
        self._rust.no_truncation()

    def __call__(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids (N, T) int64 and mask (N, T) bool, T <= context_length."""
        room = self.context_length - 1 - self.append_sep
        rows = [encoding.ids for encoding in self._rust.encode_batch_fast(list(captions), add_special_tokens=False)]
        self.num_seen += len(rows)
        self.num_long += sum(len(row) > room for row in rows)
        end = [self.vocabulary.sep_id] if self.append_sep else []
        rows = [[self.vocabulary.cls_id, *row[:room], *end] for row in rows]
        longest = max(map(len, rows))
        length = min(-(-longest // self.pad_to_multiple) * self.pad_to_multiple, self.context_length)
        ids = np.full((len(rows), length), self.vocabulary.pad_id, dtype=np.int64)
        mask = np.zeros((len(rows), length), dtype=bool)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
            mask[number, : len(row)] = True
        return torch.from_numpy(ids), torch.from_numpy(mask)

    def warn_if_long(self, captions: Iterable[str], key: str = "data.context_length") -> int:
        """Counts the captions that will be cut and warns once with their share; returns their number."""
        room = self.context_length - 1 - self.append_sep
        lengths = [
            len(encoding.ids) for encoding in self._rust.encode_batch_fast(list(captions), add_special_tokens=False)
        ]
        num_long = sum(length > room for length in lengths)
        if num_long:
            longest = max(lengths) + 1 + self.append_sep
            share = 100 * num_long / len(lengths)
            log.warning(
                "%d of %d captions (%.1f %%) are longer than %s=%d and are cut; the longest has %d",
                num_long,
                len(lengths),
                share,
                key,
                self.context_length,
                longest,
            )
        return num_long

    def save(self, folder: str | Path) -> None:
        """Writes the tokenizer where `load_tokenizer` finds it."""
        self.tokenizer.save_pretrained(str(folder))


_PUNCTUATION = re.compile(r"[,.'!?\"()*#:;~]")


def clean_caption(caption: str, max_words: int = 30) -> str:
    """Cleans a natural caption as the ALBEF reference does before tokenizing.

    Lower case; punctuation dropped; "-" and "/" become spaces; "<person>" becomes "person"; at most `max_words` words.
    """
    caption = _PUNCTUATION.sub("", caption.lower()).replace("-", " ").replace("/", " ").replace("<person>", "person")
    return " ".join(caption.split()[:max_words])


def text_id(caption: str) -> int:
    """A number in [0, 2^63) that is equal for captions which differ only in case and spaces."""
    digest = hashlib.blake2b(" ".join(caption.lower().split()).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
