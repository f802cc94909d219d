"""The second pass: what depends on other documents, decided over all parts at once.

D documents of all parts, in order; E entries, see `near.clusters`. Memory is some 40 bytes a document and nothing of
any text.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignlab.corpus.looking import Plan
from alignlab.corpus.near.clusters import Sets, dropped, similar
from alignlab.corpus.near.stored import Stored
from alignlab.corpus.settings import made
from alignlab.corpus.steps.pairs import contradictory, in_both
from alignlab.corpus.steps.pictures import look_alikes

Found = tuple[int, str, dict[str, Any]]  # document, reason, evidence


class Corpus:
    """What the first pass found, of all parts.

    Args:
        references: how many parts, at the begin, are only compared with.

    Attributes:
        step: (D,) which step drops each document; KEPT: none.
        others: document -> reason and evidence, for those dropped because of another.
        firsts: (P + 1,) number of each part's first document.
        lines: (P + 1,) lines before each part, over all files.
    """

    def __init__(self, folder: Path, parts: int, references: int) -> None:
        self.folder, self._parts = folder, parts
        files = [np.load(folder / f"{number:06d}.npz") for number in range(parts)]
        counts = [int(file["documents"]) for file in files]
        self.firsts = np.cumsum([0, *counts])
        self.references = int(self.firsts[references])
        self.lines = np.cumsum([0, *(int(file["lines"]) for file in files)])
        self.digests = [bytes(file["digest"]).hex() for file in files]
        self.step = self.column("step")
        self.others: dict[int, tuple[str, dict[str, Any]]] = {}

    def column(self, name: str) -> np.ndarray:
        """(D, ...) one column of all documents."""
        held = []
        for number in range(self._parts):
            with np.load(self.folder / f"{number:06d}.npz") as file:
                if name in file:
                    held.append(file[name])
        return np.concatenate(held) if held else np.zeros(0, np.int64)

    def part_of(self, document: int) -> tuple[int, int]:
        """A document's part and its number there."""
        part = int(np.searchsorted(self.firsts, document, "right")) - 1
        return part, document - int(self.firsts[part])


def resolve(corpus: Corpus, plan: Plan) -> None:
    """Has the steps over all documents decide, in their order among the others."""
    for order, (name, settings) in enumerate(plan.chain):
        step = made(name, settings)
        taking_part = corpus.step >= order  # what an earlier step dropped is no duplicate of anything
        if name == "exact_dup":
            found = _equal(corpus.column(name), taking_part)
        elif name == "near_dup":
            found = _near(corpus, step, taking_part)
        elif name == "pairs":
            found = _pairs(corpus, taking_part)
        elif name == "pictures":
            found = _pictures(corpus, step, taking_part)
        else:
            continue
        for document, reason, evidence in found:
            if document >= corpus.references and corpus.step[document] > order:
                corpus.step[document] = order
                corpus.others[document] = reason, evidence


def _equal(keys: np.ndarray, taking_part: np.ndarray) -> Iterator[Found]:
    documents = np.flatnonzero(taking_part)
    order = np.lexsort((documents, keys[documents, 1], keys[documents, 0])) if len(documents) else documents
    ordered = documents[order]
    new = np.ones(len(ordered), bool)
    new[1:] = (keys[ordered[1:]] != keys[ordered[:-1]]).any(1)
    first = ordered[np.maximum.accumulate(np.where(new, np.arange(len(ordered)), 0))]
    for document, other in zip(ordered[~new].tolist(), first[~new].tolist(), strict=True):
        yield document, "duplicate", {"of": other}


def _pairs(corpus: Corpus, taking_part: np.ndarray) -> Iterator[Found]:
    keys, held = corpus.column("pairs"), corpus.column("pairs_held").astype(bool)
    held[: corpus.references] = True
    documents = np.flatnonzero(taking_part & (keys.any(1)))
    for document, other in contradictory(keys, documents):
        yield document, "contradictory", {"of": other}
    for document, other in in_both(keys, documents, held):
        yield document, "prompt in both splits", {"of": other}


def _near(corpus: Corpus, step: Any, taking_part: np.ndarray) -> Iterator[Found]:
    parts = range(len(corpus.firsts) - 1)
    loaded = {name: [_array(corpus.folder, number, name) for number in parts] for name in ("entries", "short")}
    owner = np.concatenate([corpus.firsts[n] + entries.astype(np.int64) for n, entries in enumerate(loaded["entries"])])
    short = np.concatenate(loaded["short"]).astype(bool)
    values, rows = ([_stored(corpus.folder, number, name) for number in parts] for name in ("values", "bands"))
    sets = Sets(values, [_array(corpus.folder, number, "bounds", np.zeros(1, np.int64)) for number in parts])
    # In order of documents; of one document the long kind before the short.
    ranked = np.lexsort((short, owner))
    ranked = ranked[taking_part[owner[ranked]]]
    groups = corpus.column("near_dup_group")[owner] ^ short.astype(np.uint64)

    def bands(band: int) -> np.ndarray:
        return np.concatenate([one.read(band * one.shape[-1], (band + 1) * one.shape[-1]) for one in rows])

    left, right, index = similar(bands, np.sort(ranked), sets, groups, step.threshold)
    first, second = np.minimum(owner[left], owner[right]), np.maximum(owner[left], owner[right])

    bounds = np.searchsorted(owner[ranked], np.arange(len(corpus.step) + 1))

    def alike(one: int, other: int) -> float:
        mine, theirs = (ranked[bounds[d] : bounds[d + 1]] for d in (one, other))
        both = [(a, b) for a in mine for b in theirs if groups[a] == groups[b] and short[a] == short[b]]
        if not both:
            return 0.0
        return float(sets.jaccard(*(np.array(side) for side in zip(*both, strict=True))).max())

    for document, (other, value) in dropped((first, second, index), alike, step.threshold).items():
        yield document, "near duplicate", {"of": other, "jaccard": round(value, 4)}


def _pictures(corpus: Corpus, step: Any, taking_part: np.ndarray) -> Iterator[Found]:
    keys, look, tint = (corpus.column(f"pictures{rest}") for rest in ("", "_look", "_tint"))
    documents = np.flatnonzero(taking_part & keys.any(1))
    first: dict[int, int] = {}  # content of a picture -> the first document that has it
    gone = set()
    for document in documents.tolist():
        other = first.setdefault(int(keys[document, 1]), document)
        if keys[other, 0] != keys[document, 0]:
            gone.add(document)
            yield document, "same picture", {"of": other}
    shown = np.array(sorted(first.values()), np.int64)  # one document of each picture
    if step.look_alikes and len(shown) > 1:
        left, right = look_alikes(look, tint, shown)

        def alike(one: int, other: int) -> float:
            return float(len(look_alikes(look, tint, np.array([one, other]))[0]))

        found = dropped((left, right, np.ones(len(left))), alike, 1.0)
        of = {int(keys[document, 0]): other for document, (other, _) in found.items()}
        for document in documents.tolist():
            if document not in gone and (other := of.get(int(keys[document, 0]))) is not None:
                gone.add(document)
                yield document, "look-alike picture", {"of": other}
    if step.max_pictures is not None:
        captions: dict[int, set[int]] = defaultdict(set)
        left_over = [document for document in documents.tolist() if document not in gone]
        for document in left_over:
            captions[int(keys[document, 2])].add(int(keys[document, 0]))
        for document in left_over:
            if (count := len(captions[int(keys[document, 2])])) > step.max_pictures:
                evidence = {"of": document, "pictures": count, "limit": step.max_pictures}
                yield document, "a caption of many pictures", evidence


def _array(folder: Path, number: int, name: str, empty: Sequence[int] | np.ndarray = ()) -> np.ndarray:
    file = folder / f"{number:06d}.{name}.npy"
    return np.load(file) if file.exists() else np.array(empty, np.int64)


def _stored(folder: Path, number: int, name: str) -> Stored:
    return Stored(folder / f"{number:06d}.{name}.npy")
