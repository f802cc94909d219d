"""Mixtures of sources: by weight or temperature, with the epochs of each source counted."""

import json
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignlab.corpus.documents import Batch
from alignlab.corpus.fingerprints import cleaned
from alignlab.corpus.looking import batched
from alignlab.corpus.sources import WHOLE, Reader, Source, detected, sources_of
from alignlab.files.writing import replaced, write_text

MANY_EPOCHS = 4  # from there on, repeating adds ever less (arXiv:2305.16264)
Row = dict[str, Any]


def shares_of(sizes: Mapping[str, int], weights: Mapping[str, float | None], temperature: float) -> dict[str, float]:
    """Share of the words that each source is to have: weights that are given, the others in proportion to their size.

    With temperature T a size or weight counts as its 1/T-th power: 1 leaves proportions, a large T evens them out.

    Raises:
        ValueError: a weight or the temperature isn't above 0; some weights are given and others not.
    """
    if temperature <= 0:
        raise ValueError(f"--temperature is {temperature:g}; it must be above 0")
    lacking = [name for name, weight in weights.items() if weight is None]
    if lacking and len(lacking) < len(weights):
        raise ValueError(f"{lacking[0]} has no weight, others have: PLACE=WEIGHT for all or for none")
    for name, weight in weights.items():
        if weight is not None and weight <= 0:
            raise ValueError(f"{name}={weight:g}: a weight must be above 0")
    powers = {
        name: (sizes[name] if weight is None else weight) ** (1 / temperature) for name, weight in weights.items()
    }
    return {name: power / sum(powers.values()) for name, power in powers.items()}


def mix(
    places: Mapping[str, float | None],
    target: Path,
    *,
    words: int | None = None,
    temperature: float = 1.0,
    seed: int = 0,
) -> list[Row]:
    """Writes `target/data/mixed.jsonl` (or .txt): documents of all sources in a random order, and `mix.json`.

    A source that is to have more words than it holds is gone through several times, each time in another order; of the
    last time only a part is taken. Rows are written as they are. Memory is 24 bytes a document.

    Args:
        places: files or folders and their weights.
        words: of the mixture; default: as many as all sources hold.

    Raises:
        ValueError: see `shares_of`; a compressed file, files of different formats, or a target that is there.
    """
    if (target / "mix.json").exists() or (target / "data").exists():
        raise ValueError(f"{target} holds results already; name another folder, or remove it")
    sources = {name: sources_of([Path(name)]) for name in places}
    forms = {source.form for held in sources.values() for source in held}
    for source in (source for held in sources.values() for source in held):
        if source.whole or source.form == "table" or len(forms) > 1:
            raise ValueError(f"{source.file}: what is mixed are .jsonl files alone, or .txt files alone, uncompressed")
    found = {name: _places(held) for name, held in sources.items()}
    sizes = {name: int(held[2].sum()) for name, held in found.items()}
    if empty := [name for name, size in sizes.items() if not size]:
        raise ValueError(f"{empty[0]} has no words")
    shares = shares_of(sizes, places, temperature)
    total, rows, drawn = words or sum(sizes.values()), [], []
    for number, (name, (files, starts, counts)) in enumerate(found.items()):
        chosen = _drawn(counts, round(total * shares[name]), np.random.default_rng([seed, number]))
        drawn.append(np.stack([np.full(len(chosen), number), files[chosen], starts[chosen]], 1))
        held = int(counts[chosen].sum())
        rows.append({"source": name, "documents": len(counts), "words": sizes[name], "share": round(shares[name], 6)})
        rows[-1] |= {"drawn": len(chosen), "words drawn": held, "epochs": round(held / sizes[name], 4)}
    order = np.random.default_rng([seed, len(found)]).permutation(sum(map(len, drawn)))
    suffix = ".jsonl" if forms == {"jsonl"} else ".txt"
    with replaced(target / "data" / f"mixed{suffix}") as temporary:
        _write(temporary, list(sources.values()), np.concatenate(drawn)[order])
    report = {"temperature": temperature, "seed": seed, "sources": rows, "corpora": cleaned(list(places))}
    write_text(target / "mix.json", json.dumps(report, ensure_ascii=False, indent=1) + "\n")
    return rows


def _places(sources: Sequence[Source]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """File, first byte and words of each document that is none wrong."""
    files, starts, counts = array("q"), array("q"), array("q")
    for number, source in enumerate(sources):
        reader, firsts = Reader(source, detected(source)), array("q", [0])
        with source.file.open("rb") as file:
            for raw in file:
                firsts.append(firsts[-1] + len(raw))
        for documents in batched(reader.documents(WHOLE)):
            batch = Batch(documents)
            words = np.diff(batch.letters.bounds).tolist()
            for document, count in zip(documents, words, strict=True):
                if document.wrong is None:
                    files.append(number)
                    starts.append(firsts[document.line])
                    counts.append(count)
    return tuple(np.array(column, np.int64) for column in (files, starts, counts))


def _drawn(counts: np.ndarray, words: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers of documents, together about `words` words: whole passes in random orders, and the begin of one more."""
    whole, rest = divmod(words, int(counts.sum()))
    passes = [rng.permutation(len(counts)) for _ in range(whole + 1)]
    reached = np.cumsum(counts[passes[-1]])
    passes[-1] = passes[-1][: int(np.searchsorted(reached, rest, "right"))]
    return np.concatenate(passes)


def _write(target: Path, sources: Sequence[Sequence[Source]], rows: np.ndarray) -> None:
    opened = [[source.file.open("rb") for source in held] for held in sources]
    try:
        with target.open("wb") as out:
            for number, file, start in rows.tolist():
                place = opened[number][file]
                place.seek(start)
                out.write(place.readline().removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n") + b"\n")
    finally:
        for file in (file for held in opened for file in held):
            file.close()
