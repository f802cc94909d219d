"""Names of Twemoji drawings in the languages of the package `emoji`, and which drawings show the same thing."""

import functools
import hashlib
import re
from typing import NamedTuple

from alignlab.data.emoji.drawings import TONES, drawing_families

# Families that differ in gender, age of a man or woman, or in how a couple is written, but show one thing: member ->
# representative.
_SAME_THING = {
    "1f468": "1f9d1",
    "1f469": "1f9d1",
    "1f466": "1f9d2",
    "1f467": "1f9d2",
    "1f474": "1f9d3",
    "1f475": "1f9d3",
    "1f934": "1fac5",
    "1f478": "1fac5",
    "1f936": "1f385",
    "1f9d1-200d-1f384": "1f385",
    "1f57a": "1f483",
    "1f930": "1fac4",
    "1fac3": "1fac4",
    "1f931": "1f9d1-200d-1f37c",
    "1f46b": "1f9d1-200d-1f91d-200d-1f9d1",
    "1f46c": "1f9d1-200d-1f91d-200d-1f9d1",
    "1f46d": "1f9d1-200d-1f91d-200d-1f9d1",
    "1f9d1-200d-2764-200d-1f48b-200d-1f9d1": "1f48f",
    "1f9d1-200d-2764-200d-1f9d1": "1f491",
    "1f9d1-200d-1f430-200d-1f9d1": "1f46f",
    "1f9d1-200d-1faef-200d-1f9d1": "1f93c",
    "1faf1-200d-1faf2": "1f91d",
}
_FAMILY_OF_PEOPLE = re.compile(
    r"1f46a|1f9d1(-200d-1f9d1)?(-200d-1f46[67])+|1f9d1-200d-1f9d1(-200d-1f9d2)+|1f9d1(-200d-1f9d2)+"
)
_FLAG = re.compile(r"1f1[ef][0-9a-f]-|1f3f4-e00")
_KEYCAP = "20e3"


class NamedDrawing(NamedTuple):
    """A drawing and what it is called."""

    drawing: str  # code points of the Twemoji picture
    concept: str  # equal for gender, skin-tone and hair variants of one thing
    names: tuple[str, ...]  # in the language asked for, the usual one first


def languages() -> list[str]:
    """Languages that have names."""
    import emoji

    return sorted(emoji.LANGUAGES)


@functools.cache
def named_drawings(language: str = "en") -> tuple[NamedDrawing, ...]:
    """All drawings with a name, flags and keycaps left out; English has several names for many of them.

    Raises:
        ValueError: for a language that the package doesn't have.
    """
    if language not in languages():
        raise ValueError(f"language is {language!r}; there are names in {', '.join(languages())}")
    from emoji import EMOJI_DATA
    from emoji.unicode_codes import load_from_json

    load_from_json(language)
    entries = {}
    for character, entry in EMOJI_DATA.items():
        if entry["status"] == 2:  # fully qualified: a whole emoji in its usual spelling
            entries["-".join(f"{ord(part):x}" for part in character if part != "\ufe0f")] = entry
    concept_of = _concepts(entries)
    drawings = []
    for family, members in drawing_families().items():
        for drawing in members if family in concept_of else ():
            entry = entries.get(_plain(drawing))
            if entry is not None and language in entry:
                spellings = [entry[language], *(entry.get("alias", []) if language == "en" else [])]
                drawings.append(
                    NamedDrawing(drawing, concept_of[family], tuple(dict.fromkeys(map(_readable, spellings))))
                )
    return tuple(sorted(drawings, key=lambda named: _simplest(named.drawing)))


def is_held_out(concept: str, share: float) -> bool:
    """Whether a concept belongs to the held-out side, by a hash of its name."""
    digest = hashlib.blake2b(concept.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 < share


def _concepts(entries: dict[str, dict]) -> dict[str, str]:
    """Family -> concept; "cat" and "cat face" are one concept too."""
    concepts = {}
    for family, members in drawing_families().items():
        if _FLAG.match(family) or _KEYCAP in family or family in TONES:
            continue
        representative = "1f46a" if _FAMILY_OF_PEOPLE.fullmatch(family) else _SAME_THING.get(family, family)
        named = [code for code in (representative, *sorted(map(_plain, members), key=_simplest)) if code in entries]
        if named:
            concepts[family] = _readable(entries[named[0]]["en"]).removesuffix(" face").removesuffix(" facing right")
    return concepts


def _simplest(drawing: str) -> tuple[int, str]:
    """Sort key that puts drawings without tone, gender and hair first."""
    return drawing.count("-"), drawing


def _plain(drawing: str) -> str:
    return "-".join(code for code in drawing.split("-") if code != "fe0f")


def _readable(name: str) -> str:
    """ ":man_cook:" -> "man cook"."""
    return name.strip(":").replace("_", " ").replace("’", "'").strip()
