"""Tokenizers whose file is a list: BERT's vocab.txt and CLIP's merges."""

import gzip
import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.implementations import BertWordPieceTokenizer

from alignlab.tokenizers.kinds.alphabet import char_of
from alignlab.tokenizers.kinds.hugging_face import Fast

# openai/CLIP, clip/simple_tokenizer.py: the file has more lines than the model took, and text is cut like this.
_CLIP_MERGES = 49152 - 256 - 2
_CLIP_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def open_wordpiece(file: Path) -> Fast:
    """BERT's vocab.txt: a piece a line; lower case unless a tokenizer_config.json beside it says otherwise."""
    lines = file.read_text(encoding="utf-8").splitlines()
    if "[UNK]" not in lines:
        raise ValueError(f"{file} is no WordPiece vocabulary: it has no line [UNK]")
    beside = file.with_name("tokenizer_config.json")
    lower = json.loads(beside.read_text(encoding="utf-8")).get("do_lower_case", True) if beside.is_file() else True
    vocabulary = {piece: index for index, piece in enumerate(lines)}
    tokenizer = BertWordPieceTokenizer(vocabulary, lowercase=lower)._tokenizer
    made = Fast(tokenizer, kind="WordPiece", specials=2)
    if not beside.is_file():
        made.notes.append("lower case was assumed")
    return made


def open_clip(file: Path) -> Fast:
    """CLIP's merges (`bpe_simple_vocab_16e6.txt.gz`): lower case, words end in `</w>`, two special tokens."""
    try:
        text = gzip.decompress(file.read_bytes()).decode() if file.suffix == ".gz" else file.read_text(encoding="utf-8")
        lines = text.split("\n")[1 : 1 + _CLIP_MERGES]
        merges = [(first, second) for first, second in (line.split() for line in lines if line)]
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{file} is no list of merges: a heading, then two pieces a line") from error
    alphabet = [char_of()[value] for value in _openai_order()]
    names = [*alphabet, *(char + "</w>" for char in alphabet), *map("".join, merges)]
    ends = ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {name: index for index, name in enumerate([*names, *ends])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token=ends[1], end_of_word_suffix="</w>", fuse_unk=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CLIP_PATTERN), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteLevel(), decoders.Replace("</w>", " "), decoders.Strip(" ", 0, 1)]
    )
    added = [{"id": vocabulary[name]} for name in ends]
    spec = {"model": {"type": "BPE"}, "decoder": {"type": "ByteLevel"}, "added_tokens": added}
    return Fast(tokenizer, spec, kind="CLIP BPE, bytes", specials=2)


def _openai_order() -> list[int]:
    """Bytes in the order of CLIP's ids: those that stand for themselves first."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [*own, *(value for value in range(256) if value not in own)]
