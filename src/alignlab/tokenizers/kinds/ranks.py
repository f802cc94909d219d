"""tiktoken's rank files: by tiktoken where it is installed, else by the same merges in `tokenizers`."""

import base64
import json
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from alignlab.tokenizers.fingerprint import known_by
from alignlab.tokenizers.kinds.alphabet import spelled
from alignlab.tokenizers.kinds.hugging_face import Fast

_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TAIL = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_TAIL}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_TAIL}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How text is cut before merging: openai/tiktoken, openai_public.py; Qwen's tokenization_qwen.py differs in digits.
PATTERNS = {"gpt2": _GPT2, "cl100k": _CL100K % "{1,3}", "qwen": _CL100K % "", "o200k": _O200K}


def read_ranks(file: Path) -> tuple[dict[bytes, int], str | None]:
    """Ranks and, where the file says it, the pattern: lines `<base64> <rank>`, or the JSON of js-tiktoken (also behind
    `export default`) and of Anthropic's tokenizer (`bpe_ranks`: lines `! <first rank> <base64> <base64> ...`)."""
    data = file.read_bytes()
    try:
        if data.lstrip().startswith((b"{", b"export default {")):
            spec, _ = json.JSONDecoder().raw_decode(data[data.index(b"{") :].decode())
            lines = [line.split(" ") for line in spec["bpe_ranks"].split("\n") if line]
            ranks = {
                base64.b64decode(token): int(first) + place
                for _, first, *tokens in lines
                for place, token in enumerate(tokens)
            }
            return ranks, spec["pat_str"]
        pairs = (line.split() for line in data.splitlines() if line)
        return {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}, None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is no rank file: lines of base64 and a number, or JSON with bpe_ranks") from error


class Tiktoken:
    """Ranks and pattern in the tiktoken package; special tokens have no ids."""

    unknown, specials = None, 0

    def __init__(self, name: str, ranks: dict[bytes, int], pattern: str, threads: int = 1) -> None:
        import tiktoken

        self.implementation = f"tiktoken {tiktoken.__version__} (Rust)"
        self.kind, self.size, self.threads, self.notes = "BPE, bytes", len(ranks), threads, []
        self.encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        self._ranks = ranks

    @cached_property
    def pieces(self) -> dict[int, bytes]:
        return {rank: piece for piece, rank in self._ranks.items()}

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        if self.threads > 1:
            return self.encoding.encode_ordinary_batch(list(texts), num_threads=self.threads)
        return [self.encoding.encode_ordinary(text) for text in texts]

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        return [self.encoding.decode(row) for row in rows]


def converted(ranks: dict[bytes, int], pattern: str) -> Fast:
    """The same tokenizer in `tokenizers`: two neighbours may merge when their union has a rank, lowest rank first, so
    every cut of a piece into two pieces is a merge of the piece's rank."""
    merges = [
        (spelled(piece[:cut]), spelled(piece[cut:]))
        for piece, _ in sorted(ranks.items(), key=lambda item: item[1])
        for cut in range(1, len(piece))
        if piece[:cut] in ranks and piece[cut:] in ranks
    ]
    vocabulary = {spelled(piece): rank for piece, rank in ranks.items()}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, fuse_unk=False, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    spec = {"model": {"type": "BPE"}, "decoder": {"type": "ByteLevel"}}
    return Fast(tokenizer, spec, specials=0)


def open_ranks(file: Path, threads: int = 1, package: bool | None = None) -> "Tiktoken | Fast":
    """A rank file.

    Args:
        package: encode by tiktoken; default: where it is installed.
    """
    ranks, pattern = read_ranks(file)
    note = ""
    if pattern is None:
        known = known_by({rank: piece for piece, rank in ranks.items()})
        name = known.pattern if known is not None and known.pattern else ""
        note = "" if name else "its file doesn't say how text is cut first: cl100k's pattern was assumed"
        pattern = PATTERNS[name or "cl100k"]
    if package if package is not None else find_spec("tiktoken") is not None:
        tokenizer: Tiktoken | Fast = Tiktoken(file.name, ranks, pattern, threads)
    else:
        tokenizer = converted(ranks, pattern)
    tokenizer.notes += [note] if note else []
    return tokenizer
