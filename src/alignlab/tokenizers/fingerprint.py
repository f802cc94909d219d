"""What a vocabulary is, whatever it is called."""

import csv
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple


class Known(NamedTuple):
    """A vocabulary that was met under a name that others agree on.

    Attributes:
        aliases: names that are its own.
        pattern: of `ranks.PATTERNS`, where rank files of it go about without.
        source: packages that it was computed from.
    """

    fingerprint: str
    name: str
    size: int
    aliases: tuple[str, ...]
    pattern: str
    source: str


def fingerprint(pieces: Mapping[int, bytes]) -> str:
    """SHA-256 over the pieces in the order of their bytes, then ids: for each, bytes' number (4 bytes, big-endian),
    bytes, id (4 bytes). Special and added tokens aren't pieces: a model's chat tokens don't make another vocabulary."""
    digest = hashlib.sha256()
    for piece, index in sorted((piece, index) for index, piece in pieces.items()):
        digest.update(len(piece).to_bytes(4, "big") + piece + index.to_bytes(4, "big"))
    return digest.hexdigest()


@cache
def known_vocabularies() -> tuple[Known, ...]:
    """The table `known.tsv`."""
    with (Path(__file__).with_name("known.tsv")).open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        return tuple(
            Known(
                row["fingerprint"],
                row["name"],
                int(row["pieces"]),
                tuple(row["aliases"].split()),
                row["pattern"],
                row["source"],
            )
            for row in rows
        )


def known_by(pieces: Mapping[int, bytes]) -> Known | None:
    """The known vocabulary with these pieces."""
    return known_as(fingerprint(pieces))


def known_as(digest: str) -> Known | None:
    """The known vocabulary with this fingerprint."""
    return next((known for known in known_vocabularies() if known.fingerprint == digest), None)


def plain(name: str) -> str:
    """A name without what people write differently."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def claimed(name: str) -> Known | None:
    """The known vocabulary that a name claims to be."""
    return next((k for k in known_vocabularies() if plain(name) in {plain(k.name), *map(plain, k.aliases)}), None)


def name_findings(named: Mapping[str, tuple[str, int]]) -> list[dict[str, str]]:
    """Two names for one vocabulary, and names that belong to another.

    Args:
        named: name to fingerprint and number of pieces.
    """
    findings = []
    groups: dict[str, list[str]] = {}
    for name, (digest, _) in named.items():
        groups.setdefault(digest, []).append(name)
    for digest, names in groups.items():
        if len(names) > 1:
            known = known_as(digest)
            what = f" ({known.name})" if known else ""
            findings.append(
                {
                    "finding": "duplicate",
                    "tokenizer": names[0],
                    "text": f"{' = '.join(names)}: one vocabulary{what}",
                }
            )
    for name, (digest, size) in named.items():
        claim, known = claimed(name), known_as(digest)
        if claim is None or claim.fingerprint == digest:
            continue
        if any(
            plain(name) in map(plain, (k.name, *k.aliases)) for k in known_vocabularies() if k.fingerprint == digest
        ):
            continue
        truth = f"it is {known.name} ({size} pieces)" if known else f"it has {size} pieces and isn't known"
        text = f"{name} is the name of {claim.name} ({claim.size} pieces), but {truth}"
        findings.append({"finding": "wrong name", "tokenizer": name, "text": text})
    return findings
