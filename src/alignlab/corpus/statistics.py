"""Sizes, lengths and languages of files."""

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignlab.corpus.documents import Batch
from alignlab.corpus.looking import batched
from alignlab.corpus.sources import WHOLE, Reader, detected, sources_of
from alignlab.corpus.steps.language import Language

Row = dict[str, Any]


def stats(places: Sequence[Path], kind: str | None = None) -> list[Row]:
    """Documents, bytes, words, lengths and languages of each file; nothing is kept but a number a document."""
    rows = []
    for source in sources_of(places):
        reader, language = Reader(source, kind or detected(source)), Language()
        words, languages, wrong, characters = array("q"), {}, 0, 0
        for documents in batched(reader.documents(WHOLE)):
            batch = Batch(documents)
            good = np.array([document.wrong is None for document in documents])
            wrong += int((~good).sum())
            batch.alive &= good
            list(language(batch))
            words.extend(np.diff(batch.letters.bounds)[good].tolist())
            for number, _ in batch.living():
                name = batch.languages[number] or "unknown"
                languages[name] = languages.get(name, 0) + 1
                characters += len(batch.texts[number])
        counts = np.array(words, np.int64)
        quantiles = np.quantile(counts, [0.05, 0.5, 0.95]).round().astype(int).tolist() if len(counts) else [0] * 3
        rows.append(
            {
                "file": source.name,
                "documents": len(counts),
                "wrong": wrong,
                "bytes": source.file.stat().st_size,
                "characters": characters,
                "words": int(counts.sum()),
                "words of a document": {"mean": round(float(counts.mean()), 1) if len(counts) else 0.0}
                | dict(zip(("p5", "median", "p95"), quantiles, strict=True)),
                "languages": dict(sorted(languages.items(), key=lambda item: (-item[1], item[0]))),
            }
        )
    return rows
