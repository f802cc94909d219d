"""What a report says in numbers: the funnel, reasons, lengths and languages before and after, files."""

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from alignlab.corpus.looking import KEPT, Plan
from alignlab.corpus.outcome import Outcome
from alignlab.corpus.resolving import Corpus
from alignlab.corpus.sources import Part
from alignlab.corpus.steps.decontam import Decontam
from alignlab.corpus.steps.language import identifier
from alignlab.evaluation.intervals import wilson

Row = dict[str, Any]


def report_of(plan: Plan, parts: Sequence[Part], corpus: Corpus, outcome: Outcome) -> Row:
    """All that is known in the end, as JSON has it."""
    own = slice(corpus.references, None)
    step, sizes, words = corpus.step[own], corpus.column("bytes")[own], corpus.column("words")[own]
    languages, kept = corpus.column("language")[own], step == KEPT
    return {
        "kind": plan.kind,
        "chain": [{name: settings} for name, settings in plan.chain],
        "fingerprint": _fingerprint(plan, parts, corpus, outcome),
        "documents": {"in": len(step), "kept": int(kept.sum())},
        "bytes": {"in": int(sizes.sum()), "kept": sum(file["bytes"] for file in outcome.files.values())},
        "words": {"in": int(words.sum()), "kept": int(words[kept].sum())},
        "files": outcome.files,
        "references": [str(source.file) for source in plan.sources if source.reference],
        "funnel": _funnel(plan, step, sizes, outcome),
        "reasons": [
            {"step": name, "reason": reason, "documents": count}
            for (name, reason), count in sorted(outcome.reasons.items(), key=lambda item: (-item[1], item[0]))
        ],
        "edits": _counted(outcome.edited),
        "told": _counted(outcome.told),
        "crossing": [
            {"file": one, "kept in": other, "documents": count}
            for (one, other), count in sorted(outcome.crossing.items())
            if one != other
        ],
        "evaluation": _evaluation(plan, outcome),
        "length bias": _length_bias(corpus.column("pairs_longer")[own][kept]) if "pairs" in plan.names() else None,
        "lengths": {"before": _histogram(words), "after": _histogram(words[kept])},
        "language": {
            "by": "fastText lid.176" if identifier() is not None else "script",
            "before": _most(languages),
            "after": _most(languages[kept]),
        },
        "samples": [
            {"step": name, "reason": reason, "documents": rows} for (name, reason), rows in outcome.samples().items()
        ],
    }


def _fingerprint(plan: Plan, parts: Sequence[Part], corpus: Corpus, outcome: Outcome) -> str:
    """Of what was read, what was done and what is kept; not of places or times."""
    told = [plan.kind, plan.chain, corpus.digests, [file["blake2b"] for file in outcome.files.values()]]
    return blake2b(repr(told).encode(), digest_size=16).hexdigest()


def _funnel(plan: Plan, step: np.ndarray, sizes: np.ndarray, outcome: Outcome) -> list[Row]:
    rows, left, size = [], len(step), int(sizes.sum())
    for order, name in enumerate(plan.names()):
        gone = step == order
        edits = sum(count for (one, _), count in outcome.edited.items() if one == name)
        told = sum(count for (one, _), count in outcome.told.items() if one == name)
        rows.append(
            {"step": name, "in": left, "dropped": int(gone.sum()), "edited": edits, "told": told, "bytes in": size}
        )
        left, size = left - int(gone.sum()), size - int(sizes[gone].sum())
        rows[-1] |= {"out": left, "bytes out": size}
    return rows


def _evaluation(plan: Plan, outcome: Outcome) -> Row | None:
    settings = dict(plan.chain).get("decontam")
    if settings is None:
        return None
    counts = Decontam(**settings).counts()
    hit = sorted(outcome.hit.items(), key=lambda item: (-item[1], item[0]))
    return {**counts, "hit": len(hit), "most": hit[:50]}


def _length_bias(longer: np.ndarray) -> Row:
    """How often the longer side is the chosen one, with a 95 % interval (Wilson) over pairs of unequal length."""
    count = int((longer != 0).sum())
    if not count:
        return {"pairs": 0, "share": None, "interval": None}
    share = int((longer > 0).sum()) / count
    interval = [round(float(end), 4) for end in wilson(share, count)]
    return {"pairs": count, "share": round(share, 4), "interval": interval}


def _counted(counts: Counter) -> list[Row]:
    return [
        {"step": name, "reason": reason, "documents": count}
        for (name, reason), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def _histogram(values: np.ndarray) -> list[tuple[int, int]]:
    """Values and how often each occurs; long ones rounded to two digits, so that there are few."""
    big = values.astype(np.int64)
    scale = 10 ** np.maximum(np.floor(np.log10(np.maximum(big, 1))).astype(np.int64) - 1, 0)
    found, counts = np.unique(big // scale * scale, return_counts=True)
    return list(zip(found.tolist(), counts.tolist(), strict=True))


def _most(languages: np.ndarray, count: int = 12) -> list[tuple[str, int]]:
    found, counts = np.unique(languages, return_counts=True)
    ordered = sorted(zip(found.tolist(), counts.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
    rest = sum(n for _, n in ordered[count:])
    named = [(name or "unknown", n) for name, n in ordered[:count]]
    return [*named, ("others", rest)] if rest else named
