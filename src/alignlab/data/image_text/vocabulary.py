"""Tokenizers: trained on captions, or loaded by hub id or folder, and one way of turning captions into ids."""

import hashlib
import logging
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from alignlab.data.recipes.cleaning import CLEANING
from alignlab.files.checksums import check_sums, small
from alignlab.hub.hint import fetch_hint
from alignlab.types.pairs import Vocabulary
from alignlab.types.recipes import TextRecipe

log = logging.getLogger(__name__)
SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def train_tokenizer(
    texts: Iterable[str], kind: str = "word", size: int = 4096, more_letters: Iterable[str] = ()
) -> PreTrainedTokenizerFast:
    """Trains a lower-casing tokenizer on captions; the same texts give the same ids. Accents and voiced marks are
    kept.

    `kind` is "word" (one id for each word, for captions from a small grammar) or "wordpiece" (BERT's, for natural
    language). `size` is the largest number of ids, special tokens included. A word piece vocabulary can spell whatever
    is written with the letters of `texts` and `more_letters` (held-out captions).
    """
    if kind not in ("word", "wordpiece"):
        raise ValueError(f"tokenizer_kind is {kind!r}; it must be 'word' or 'wordpiece'")
    special = list(SPECIAL_TOKENS.values())
    tokenizer = _untrained(models.WordLevel(unk_token="[UNK]") if kind == "word" else models.WordPiece())
    if kind == "word":
        trainer = trainers.WordLevelTrainer(vocab_size=size, special_tokens=special, show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
    else:
        texts, more_letters = list(texts), "".join(more_letters)
        normalise = tokenizer.normalizer.normalize_str
        alphabet = {letter for text in (*texts, more_letters) for letter in normalise(text)} - {" "}
        # The trainer numbers inner letters in the order of a hash table, which differs between processes, and breaks
        # ties between merges by number. Given first and sorted, they have the same numbers everywhere. Chinese
        # characters get spaces around them and so are never inside a word.
        special += [f"##{letter}" for letter in sorted(alphabet) if " " not in normalise(f"a{letter}a")]
        if (least := len(special) + len(alphabet)) > size:
            raise ValueError(f"vocab_size is {size}; the captions' {len(alphabet)} letters need {least}")
        trainer = trainers.WordPieceTrainer(
            vocab_size=size, special_tokens=special, initial_alphabet=sorted(alphabet), show_progress=False
        )
        tokenizer.train_from_iterator(texts, trainer)
        tokenizer = _untrained(models.WordPiece(tokenizer.get_vocab(), unk_token="[UNK]", max_input_chars_per_word=64))
        tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL_TOKENS)


def with_words_of(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words that knows those of the texts too, numbered behind all others in the order in which
    they come; one of another kind as it is.
    """
    rust = tokenizer.backend_tokenizer
    if not isinstance(rust.model, models.WordLevel):
        return tokenizer
    normalise, cut, known = rust.normalizer.normalize_str, rust.pre_tokenizer.pre_tokenize_str, tokenizer.get_vocab()
    new = {word: None for text in texts for word, _ in cut(normalise(text)) if word not in known}
    if not new:
        return tokenizer
    numbers = known | {word: len(known) + place for place, word in enumerate(new)}
    larger = _untrained(models.WordLevel(numbers, unk_token="[UNK]"))
    return PreTrainedTokenizerFast(tokenizer_object=larger, **SPECIAL_TOKENS)


def _untrained(model: models.Model) -> Tokenizer:
    tokenizer = Tokenizer(model)
    # Accents become letters of their own, so that both spellings of one (composed or not) have the same ids; nothing
    # is stripped.
    bert = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.normalizer = normalizers.Sequence([bert, normalizers.NFD()])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def load_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Loads a tokenizer by hub id or from a local folder.

    Raises:
        ValueError: if there is none, or if it lacks a special token (padding, start, separator or mask) that the
            models need.
    """
    check_sums(name, "tokenizer", small)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, use_fast=True, trust_remote_code=False)
    except Exception as error:  # of the network, the hub, and whatever a damaged tokenizer.json makes of the readers
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"tokenizer={name!r} can't be loaded as hub id or folder: {reason}{fetch_hint(name)}"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(f"tokenizer={name!r} has no fast version (tokenizer.json)")
    missing = [token for token in SPECIAL_TOKENS if token != "unk_token" and getattr(tokenizer, token) is None]
    if missing:
        raise ValueError(f"tokenizer={name!r} has no {', '.join(missing)}; use one in the manner of BERT")
    return tokenizer


def vocabulary_of(tokenizer: PreTrainedTokenizerFast, recipe: TextRecipe | None = None) -> Vocabulary:
    """What nets and losses need to know about a tokenizer; with a released net's recipe for texts."""
    if recipe is not None:
        first, last = (*recipe.begin, *recipe.end)[0], (*recipe.begin, *recipe.end)[-1]
        return Vocabulary(len(tokenizer), recipe.pad_id, first, last, tokenizer.mask_token_id)
    return Vocabulary(
        len(tokenizer), tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id
    )


class Losses(NamedTuple):
    """What token ids lose of captions, as numbers of captions."""

    cut: int
    unknown: int
    equal: int


class CaptionEncoder:
    """Turns captions into ids `[CLS] x` (with `append_sep`: `[CLS] x [SEP]`), padded to the longest of the batch.

    Strings of control tokens in a caption are text.

    The template without [SEP] is that of the ALBEF reference. `pad_to_multiple` rounds the length up, for hardware
    that prefers it. Longer captions are cut to `context_length` ids. A `recipe` says instead what a released net's own
    processor puts around a caption, and how it pads.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        context_length: int,
        append_sep: bool = False,
        pad_to_multiple: int = 1,
        recipe: TextRecipe | None = None,
    ) -> None:
        if context_length < 3:
            raise ValueError(f"context_length is {context_length}; it must be at least 3")
        if pad_to_multiple < 1:
            raise ValueError(f"pad_to_multiple is {pad_to_multiple}; it must be at least 1")
        self.tokenizer, self.context_length = tokenizer, context_length
        self.pad_to_multiple = pad_to_multiple
        self.vocabulary = vocabulary_of(tokenizer, recipe)
        if recipe is None:
            end = (self.vocabulary.sep_id,) if append_sep else ()
            recipe = TextRecipe(context_length, (self.vocabulary.cls_id,), end, self.vocabulary.pad_id)
        self.recipe, self._clean = recipe, CLEANING[recipe.cleaning]
        self._rust = Tokenizer.from_str(
            tokenizer.backend_tokenizer.to_str()
        )  # a copy: its padding and truncation are ours to switch off
        self._rust.no_padding()
        self._rust.no_truncation()
        self._rust.encode_special_tokens = True  # "[MASK]" in a caption is text: the model's own are set by id

    @property
    def _room(self) -> int:
        """Ids of a caption itself."""
        return self.context_length - self._around

    @property
    def _around(self) -> int:
        """Ids around it."""
        return len(self.recipe.begin) + len(self.recipe.end)

    def __call__(self, captions: Sequence[str], draws: Sequence[float] | None = None) -> tuple[Tensor, Tensor]:
        """Ids (N, T) int64 and mask (N, T) bool, T <= context_length.

        draws (N,) in [0, 1): which of all windows of a longer caption it is; None: its beginning.
        """
        rows, room = self._own_ids(captions), self._room
        if draws is not None:
            starts = [int(draw * max(1, len(row) - room + 1)) for row, draw in zip(rows, draws, strict=True)]
            rows = [row[start:] for row, start in zip(rows, starts, strict=True)]
        return self._padded(rows)

    def marked(self, captions: Sequence[str], spans: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor, Tensor]:
        """Ids and mask, and (N, T) bool which tokens hold characters [start, end) of their caption; none where it was
        cut before.
        """
        if self.recipe.left or self.recipe.cleaning != "none":
            raise ValueError("a released net's tokenizer changes texts first: no word of a sentence can be found again")
        encodings = self._rust.encode_batch(list(captions), add_special_tokens=False)
        ids, mask = self._padded([encoding.ids for encoding in encodings])
        chosen = torch.zeros_like(mask)
        before = len(self.recipe.begin)
        for row, (encoding, (start, end)) in enumerate(zip(encodings, spans, strict=True)):
            for place, (first, last) in enumerate(encoding.offsets):
                if first < end and last > start and place < self._room:
                    chosen[row, before + place] = True
        return ids, mask, chosen

    def _own_ids(self, captions: Iterable[str]) -> list[list[int]]:
        """Ids of the captions' own words."""
        cleaned = [self._clean(caption) for caption in captions]
        return [encoding.ids for encoding in self._rust.encode_batch_fast(cleaned, add_special_tokens=False)]

    def _padded(self, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
        room, recipe = self._room, self.recipe
        rows = [[*recipe.begin, *row[:room], *recipe.end] for row in rows]
        longest = max(map(len, rows))
        length = min(-(-longest // self.pad_to_multiple) * self.pad_to_multiple, self.context_length)
        if recipe.whole:
            length = self.context_length
        ids = np.full((len(rows), length), recipe.pad_id, dtype=np.int64)
        mask = np.full((len(rows), length), recipe.whole, dtype=bool)
        for number, row in enumerate(rows):
            own = slice(length - len(row), length) if recipe.left else slice(len(row))
            ids[number, own] = row
            mask[number, own] = True
        return torch.from_numpy(ids), torch.from_numpy(mask)

    def warn_of_losses(self, captions: Iterable[str], key: str = "context_length") -> Losses:
        """Counts captions that will be cut, that have unknown words, or that get the ids of another caption, and warns
        of each once.
        """
        captions, room = list(captions), self._room
        rows = self._own_ids(captions)
        long = [len(row) for row in rows if len(row) > room]
        if long:
            share, longest = 100 * len(long) / len(rows), max(long) + self._around
            log.warning(
                "%d of %d captions (%.1f %%) are longer than %s=%d and are cut; the longest has %d",
                len(long),
                len(rows),
                share,
                key,
                self.context_length,
                longest,
            )
        unknown = [text for text, row in zip(captions, rows, strict=True) if self.tokenizer.unk_token_id in row]
        if unknown:
            log.warning(
                "%d of %d captions have words that the tokenizer doesn't know (%s), such as %r",
                len(unknown),
                len(rows),
                self.tokenizer.unk_token,
                unknown[0],
            )
        alike: dict[tuple[int, ...], dict[str, str]] = {}  # ids -> captions, each spelling of one once
        for text, row in zip(captions, rows, strict=True):
            alike.setdefault(tuple(row[:room]), {}).setdefault(_spelling(text), text)
        equal = [list(texts.values()) for texts in alike.values() if len(texts) > 1]
        num_equal = sum(map(len, equal))
        if equal:
            log.warning(
                "%d of %d different captions have the same ids as another one, so no model can tell them apart, such "
                "as %r and %r",
                num_equal,
                sum(map(len, alike.values())),
                *equal[0][:2],
            )
        return Losses(len(long), len(unknown), num_equal)


_PUNCTUATION = re.compile(r"[,.'!?\"()*#:;~]")


def clean_caption(caption: str, max_words: int = 30) -> str:
    """Cleans a natural caption as the ALBEF reference does before tokenizing.

    Lower case; punctuation dropped; "-" and "/" become spaces; "<person>" becomes "person"; at most `max_words` words.
    """
    caption = _PUNCTUATION.sub("", caption.lower()).replace("-", " ").replace("/", " ").replace("<person>", "person")
    return " ".join(caption.split()[:max_words])


def _spelling(caption: str) -> str:
    """A caption without what nobody calls a difference: case, spaces, whether accents are composed."""
    return " ".join(unicodedata.normalize("NFC", caption.lower()).split())


def text_id(caption: str) -> int:
    """A number in [0, 2^63) that is equal for captions which differ only in case and spaces."""
    digest = hashlib.blake2b(_spelling(caption).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
