"""Tokenizers of language models: the built-in one, trained on the movie reviews, or a model's own."""

import logging
import re
from collections.abc import Iterable, Sequence
from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from alignlab.data.language.chat_text import CONTROL
from alignlab.data.language.rated_reviews import rated_reviews
from alignlab.types.language import LanguageVocabulary

log = logging.getLogger(__name__)
SPECIAL_TOKENS = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}


def byte_level(tokenizer: Tokenizer, texts: Iterable[str], size: int, *, prefix_space: bool) -> Tokenizer:
    """Trains an empty BPE tokenizer on bytes (arXiv:1508.07909), to `size` ids.

    prefix_space: a space is set before the first word too, so that a word has the same ids wherever it stands.

    Raises:
        ValueError: fewer ids than bytes and special tokens.
    """
    least = 256 + len(SPECIAL_TOKENS)
    if size < least:
        raise ValueError(f"vocab_size is {size}; 256 bytes and {len(SPECIAL_TOKENS)} special tokens need {least}")
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    # The whole alphabet, sorted, is given: no letter is unknown, and ids don't depend on the order of a hash table.
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL_TOKENS.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@cache
def _trained(size: int) -> str:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    return byte_level(tokenizer, rated_reviews().texts, size, prefix_space=True).to_str()


def built_in_tokenizer(size: int = 4096) -> PreTrainedTokenizerFast:
    """Lower-casing byte-level BPE trained on the built-in movie reviews; the same in every process.

    Raises:
        ValueError: fewer ids than bytes and special tokens.
    """
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(_trained(size)), **SPECIAL_TOKENS)


def add_tokens(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Adds tokens to a tokenizer; the pieces that each new one was cut into before. Known ones are left alone.

    `<|name|>` is a control token, which only a chat template writes; any other is text that is one token from now on.

    Raises:
        ValueError: a token is empty or stands twice, or would get an id in the midst of others.
    """
    pieces: list[tuple[int, ...]] = []
    for token in tokens:
        if not token.strip() or list(tokens).count(token) > 1:
            raise ValueError(f"new_tokens: {token!r} {'is empty' if not token.strip() else 'stands twice'}")
        if token in tokenizer.get_vocab():
            log.info("new_tokens: the tokenizer knows %s", token)
            continue
        before, size = tokenizer(token, add_special_tokens=False)["input_ids"], len(tokenizer)
        control = re.fullmatch(CONTROL, token) is not None
        tokenizer.add_tokens([AddedToken(token, normalized=False, special=control)], special_tokens=control)
        if tokenizer.convert_tokens_to_ids(token) != size or not before:
            raise ValueError(f"new_tokens: this tokenizer can't take {token} in behind its {size} ids")
        pieces.append(tuple(before))
    return tuple(pieces)


def vocabulary_of(tokenizer: PreTrainedTokenizerBase, added: tuple[tuple[int, ...], ...] = ()) -> LanguageVocabulary:
    """What systems need to know about a tokenizer to which `added` was added; without a padding token the end of text
    pads (masks come from lengths).

    Raises:
        ValueError: it has no end-of-text token.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer {tokenizer.name_or_path or ''} has no end-of-text token (eos_token)")
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return LanguageVocabulary(len(tokenizer), pad, tokenizer.bos_token_id, tokenizer.eos_token_id, added)
