"""Tokenizers side by side on one corpus."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from alignlab.tokenizers.begin_tokens import chat_renderer, lint, wrapper
from alignlab.tokenizers.corpus import PREFERENCE, Corpus, Record
from alignlab.tokenizers.fingerprint import fingerprint, known_as, name_findings
from alignlab.tokenizers.kinds.tokenizer import TextTokenizer
from alignlab.tokenizers.measures import Measures, PairMeasures, Vocabulary, parity
from alignlab.tokenizers.opening import Named, open_tokenizer

Row = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Settings.

    Args:
        contexts: tokens that models take, special ones included.
        batch_size: texts handed to a tokenizer at a time.
        passes: over the texts that speed is measured on; their median counts. 0: not measured.
        speed_bytes: of each part, from its start, that speed is measured on.
        threads: of tokenizers that have any.
        samples: records whose tokens are kept, to be looked at.
        seed: of the bootstrap.
    """

    contexts: tuple[int, ...] = (77, 30)
    batch_size: int = 1000
    passes: int = 5
    speed_bytes: int = 500_000
    threads: int = 1
    samples: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("passes", 0), ("speed_bytes", 1), ("threads", 1), ("samples", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        for context in self.contexts:
            if context < 1:
                raise ValueError(f"contexts: {context}; it must be at least 1")

    def run(self, tokenizers: Sequence[Named], corpus: Corpus, say: Callable[[str], object] = lambda text: None) -> Row:
        """The report: rows, a tokenizer each, and findings. One that can't be read is a row with its `error`."""
        rows = []
        for named in tokenizers:
            say(named.name)
            row: Row = {"tokenizer": named.name, "place": named.place, "error": None}
            try:
                tokenizer, seconds = open_tokenizer(named.place, self.threads)
            except (ValueError, OSError) as error:
                rows.append({**row, "error": str(error)})
                continue
            rows.append({**row, "load seconds": seconds, **self._row(tokenizer, named.place, corpus)})
        return {
            "corpus": {
                "files": [str(file) for file in corpus.files],
                "kind": corpus.kind,
                "parts": corpus.parts,
                "skipped": corpus.skipped,
                "limit": corpus.limit,
            },
            "settings": {**vars(self)},
            "rows": rows,
            "findings": _findings(rows),
            "samples": [_shown(record) for record in islice(corpus, self.samples)],
        }

    def _row(self, tokenizer: TextTokenizer, place: str, corpus: Corpus) -> Row:
        start = time.perf_counter()
        wrapped = wrapper(place)
        render, note = chat_renderer(wrapped)
        if corpus.kind == "chats" and hasattr(tokenizer, "read_specials"):
            tokenizer.read_specials()
        digest = fingerprint(tokenizer.pieces)
        known = known_as(digest)
        vocabulary = Vocabulary(tokenizer)
        parts = ("chat",) if corpus.kind == "chats" else corpus.parts
        measures = {part: Measures(vocabulary, self.contexts, tokenizer.specials) for part in parts}
        pairs = PairMeasures(self.contexts, tokenizer.specials)
        for batch in corpus.batches(self.batch_size):
            texts = {part: [_text(record, part, render) for record in batch] for part in parts}
            for part in parts:
                ids = tokenizer.encode(texts[part])
                measures[part].add(texts[part], ids, tokenizer.decode(ids))
            if corpus.kind == "preferences":
                for prompt, *both in zip(*self._joined(tokenizer, texts), strict=True):
                    pairs.add(prompt, *both)
        row: Row = {
            "kind": tokenizer.kind,
            "implementation": tokenizer.implementation,
            "vocabulary": tokenizer.size,
            "pieces": len(tokenizer.pieces),
            "fingerprint": digest,
            "known as": known.name if known else None,
            "specials": tokenizer.specials,
            "unused": vocabulary.unused(),
            "notes": [*tokenizer.notes, *([note] if note and corpus.kind == "chats" else [])],
            "parts": {part: measure.row() for part, measure in measures.items()},
            "begin tokens": lint(wrapped) if wrapped is not None else [],
        }
        if corpus.kind == "aligned":
            first, *others = (measures[part].in_order for part in parts)
            row["parity"] = {
                f"{part}/{parts[0]}": parity(first, other, seed=self.seed)
                for part, other in zip(parts[1:], others, strict=True)
            }
        if corpus.kind == "preferences":
            row["pairs"] = pairs.row()
        row["samples"] = [
            {part: _tokens(tokenizer, _text(record, part, render)) for part in parts}
            for record in islice(corpus, self.samples)
        ]
        row["seconds"] = time.perf_counter() - start
        row["speed"] = {part: self._speed(tokenizer, corpus, part, render) for part in parts} if self.passes else {}
        return row

    def _joined(self, tokenizer: TextTokenizer, texts: dict[str, list[str]]) -> list[list[list[int]]]:
        prompts = texts.get("prompt") or [""] * len(texts["chosen"])
        joined = [[prompt + answer for prompt, answer in zip(prompts, texts[side], strict=True)] for side in PREFERENCE]
        return [tokenizer.encode(rows) for rows in (prompts, *joined)]

    def _speed(self, tokenizer: TextTokenizer, corpus: Corpus, part: str, render: Callable) -> Row:
        """Megabytes a second of `encode`: one pass to warm up, then the median of `passes`."""
        texts, size = [], 0
        for record in corpus:
            texts.append(_text(record, part, render))
            size += len(texts[-1].encode())
            if size >= self.speed_bytes:
                break
        batches = [texts[at : at + self.batch_size] for at in range(0, len(texts), self.batch_size)]
        rates = []
        for _ in range(1 + self.passes):
            start = time.perf_counter()
            for batch in batches:
                tokenizer.encode(batch)
            rates.append(size / 1e6 / (time.perf_counter() - start))
        rates = rates[1:]
        return {
            "MB/s": statistics.median(rates),
            "slowest": min(rates),
            "fastest": max(rates),
            "passes": self.passes,
            "bytes": size,
            "batch": min(self.batch_size, len(texts)),
            "threads": getattr(tokenizer, "threads", self.threads if "Rust" in tokenizer.implementation else 1),
        }


def _text(record: Record, part: str, render: Callable) -> str:
    return render(record["messages"]) if part == "chat" and "messages" in record else record[part]


def _shown(record: Record) -> Record:
    return {part: value if isinstance(value, str) else str(value) for part, value in record.items()}


def _tokens(tokenizer: TextTokenizer, text: str) -> list[str]:
    """Tokens of a text as they are read: bytes that are no characters as `\\xe4`."""
    return [
        tokenizer.pieces[index].decode(errors="backslashreplace")
        if index in tokenizer.pieces
        else tokenizer.decode([[index]])[0] or f"[{index}]"
        for index in tokenizer.encode([text])[0]
    ]


def _findings(rows: Sequence[Row]) -> list[Row]:
    read = [row for row in rows if row["error"] is None]
    findings: list[Row] = list(name_findings({row["tokenizer"]: (row["fingerprint"], row["pieces"]) for row in read}))
    for row in read:
        for finding in row["begin tokens"]:
            text = f"{row['tokenizer']}: {finding['text']}"
            findings.append({**finding, "tokenizer": row["tokenizer"], "text": text})
    seen: dict[str, Row] = {}
    for row in read:
        other = seen.setdefault(row["fingerprint"], row)
        differing = [p for p, columns in row["parts"].items() if columns["tokens"] != other["parts"][p]["tokens"]]
        if differing:
            counts = ", ".join(f"{p}: {other['parts'][p]['tokens']} and {row['parts'][p]['tokens']}" for p in differing)
            text = (
                f"{other['tokenizer']} and {row['tokenizer']} have one vocabulary and cut text differently ({counts})"
            )
            findings.append({"finding": "one vocabulary, other tokens", "tokenizer": row["tokenizer"], "text": text})
    return findings
