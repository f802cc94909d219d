"""Tokenizers that are made for a data set: byte-level BPE of a user's text, or one id for each symbol of a task."""

from collections.abc import Iterable, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from alignlab.data.language.tokenizer import SPECIAL_TOKENS, byte_level

END = {"eos_token": "<eos>", "pad_token": "<eos>"}
MOST = 50_000_000  # letters that a tokenizer is trained on: those of more texts hardly change it


def trained_tokenizer(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE with `size` ids, trained on the first 50 million letters of some texts, the
    same in every process.

    Raises:
        ValueError: fewer ids than bytes and special tokens.
    """
    tokenizer = byte_level(Tokenizer(models.BPE()), _first(texts), size, prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL_TOKENS)


def symbols_tokenizer(symbols: Sequence[str], pattern: str = ".") -> PreTrainedTokenizerFast:
    """One id for each symbol, `<eos>` as the first; `pattern` finds symbols in a text, what is none is left out."""
    words = {word: number for number, word in enumerate([END["eos_token"], *symbols])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=END["eos_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **END)


def _first(texts: Iterable[str]) -> Iterable[str]:
    left = MOST
    for text in texts:
        if left <= 0:
            return
        yield text[:left]
        left -= len(text)
