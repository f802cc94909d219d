"""Tokenizer files of every kind, made of a few lines of text."""

import base64
import json
import struct
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

ENGLISH = [
    "The disk is full; remove what isn't needed.",
    "A package  is installed with apt, version 12.4.",
    "Servers need names, addresses and a firewall.",
    "The disk is small, the packages are many.",
    "Names of servers are written in lower case.",
]
CHINESE = [
    "磁盘已满；请删除不需要的软件包。",
    "软件包用 apt 安装，版本 12.4。",
    "服务器需要名称、地址和防火墙。",
    "磁盘很小，软件包很多。",
    "服务器名称用小写字母。",
]


def byte_bpe(file: Path, size: int = 420, texts: list[str] = ENGLISH + CHINESE[:2]) -> Path:
    """GPT-2's kind: a tokenizer.json."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(["<s>"])
    begin = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", begin)])
    file.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(file))
    return file


def ranks_of(tokenizer_json: Path, file: Path) -> Path:
    """The same as tiktoken's ranks, in the JSON of js-tiktoken."""
    from alignlab.tokenizers.kinds.ranks import PATTERNS
    from alignlab.tokenizers.opening import open_tokenizer

    tokenizer, _ = open_tokenizer(str(tokenizer_json))
    tokens = " ".join(base64.b64encode(tokenizer.pieces[rank]).decode() for rank in sorted(tokenizer.pieces))
    file.write_text(json.dumps({"pat_str": PATTERNS["gpt2"], "special_tokens": {}, "bpe_ranks": f"! 0 {tokens}"}))
    return file


def sentencepiece_model(file: Path, pieces: list[tuple[str, float, int]], algorithm: int = 2) -> Path:
    """A SentencePiece model (2: BPE, 1: Unigram) that sets a space in front and leaves text alone."""

    def field(number: int, data: bytes) -> bytes:
        return bytes([number << 3 | 2]) + _varint(len(data)) + data

    body = b"".join(
        field(1, field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + b"\x18" + bytes([kind]))
        for text, score, kind in pieces
    )
    falls_back = b"\x98\x02\x01" if any(kind == 6 for *_, kind in pieces) else b""  # field 35, byte_fallback
    body += field(2, b"\x18" + bytes([algorithm]) + falls_back) + field(3, field(1, b"identity") + b"\x18\x01\x20\x00")
    file.write_bytes(body)
    return file


def _varint(value: int) -> bytes:
    data = b""
    while value > 127:
        data, value = data + bytes([value & 127 | 128]), value >> 7
    return data + bytes([value])
