"""Corpora with planted duplicates and personal data whose labels are exact, computed by nothing of the room."""

import gzip
import random
import re
from collections.abc import Callable
from pathlib import Path

from alignlab.data import language

REVIEWS = Path(language.__file__).parent / "movie_reviews.tsv.gz"
HAN = "的一是了我不人在他有这个上们来到时大地为子中你说生国年着就那和要她出也得里后自以会家可下而过天去能对小多然于心学么之都好看起发当没成只如事把还用第样道想作种开美总从无情己面最女但现前些所同日手又行意动方期它头经长儿回位分爱老因很给名法间斯知世什两次使身者被高已亲其进此话常与活正感"  # noqa: E501


def english_words() -> list[str]:
    """Words of real reviews, in the order of the file: frequent ones are there often."""
    with gzip.open(REVIEWS, "rt", encoding="utf-8") as file:
        return re.findall(r"[a-z]+", file.read(400_000).lower())


def sets_of(text: str) -> set:
    """The shingles of a text as docs/corpus.md defines them: plain Python, one set a text."""
    words = re.findall(r"[一-鿿]|[a-z0-9]+", text.lower())
    chinese = sum(len(word) == 1 and word >= "一" for word in words) * 2 > len(words)
    if len(words) >= 20:  # tests stay away from the band where a text has both sets
        return {tuple(words[k : k + 5]) for k in range(len(words) - 4)}
    joined = "".join(words) if chinese else " ".join(words)
    size = 2 if chinese else 3
    return {joined[k : k + size] for k in range(len(joined) - size + 1)}


def jaccard(one: str, other: str) -> float:
    """By the sets above."""
    mine, theirs = sets_of(one), sets_of(other)
    return len(mine & theirs) / len(mine | theirs)


def planted(
    make: Callable[[random.Random], list[str]],
    joint: str,
    count: int,
    seed: int,
    between: tuple[float, float],
    change: Callable[[random.Random, list[str]], list[str]],
) -> list[tuple[str, str]]:
    """Pairs of a text and a changed one whose index lies between two values, spread over what is between."""
    rng, found = random.Random(seed), []
    while len(found) < count:
        units, aim = make(rng), rng.uniform(*between)
        other, index = units, 1.0
        while index > aim:
            other = change(rng, other)
            index = jaccard(joint.join(units), joint.join(other))
        if between[0] <= index <= between[1]:
            found.append((joint.join(units), joint.join(other)))
    return found


def replaced_unit(words: list[str]) -> Callable[[random.Random, list[str]], list[str]]:
    """A change: one unit is another."""

    def change(rng: random.Random, units: list[str]) -> list[str]:
        at = rng.randrange(len(units))
        return [*units[:at], rng.choice(words), *units[at + 1 :]]

    return change


def changed_letter(rng: random.Random, units: list[str]) -> list[str]:
    """A change: one letter of one word."""
    at = rng.randrange(len(units))
    letter = rng.randrange(len(units[at]))
    word = units[at][:letter] + rng.choice("abcdefghijklmnopqrstuvwxyz") + units[at][letter + 1 :]
    return [*units[:at], word, *units[at + 1 :]]


def luhn(digits: str) -> str:
    """The digits with their check digit."""
    total = sum(int(c) if k % 2 else sum(divmod(2 * int(c), 10)) for k, c in enumerate(reversed(digits)))
    return digits + str(-total % 10)


def chinese_id(rng: random.Random) -> str:
    """An identity number with its check digit (ISO 7064, mod 11-2, computed by powers of two)."""
    day = f"{rng.randint(1950, 2009)}{rng.randint(1, 12):02d}{rng.randint(1, 28):02d}"
    body = f"{rng.choice(['110105', '310115', '440304', '510107'])}{day}{rng.randint(0, 999):03d}"
    rest = sum(int(c) * pow(2, 17 - k, 11) for k, c in enumerate(body)) % 11
    return body + "10X98765432"[rest]
