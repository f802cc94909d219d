"""Personal data: e-mail addresses, telephone numbers, Chinese identity numbers, IP addresses, payment cards."""

import ipaddress
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Literal, NamedTuple

from alignlab.corpus.documents import Batch, Verdict

KINDS = ("email", "phone", "id", "ip", "card")
_LOCAL = "".join(map(chr, (*range(48, 58), *range(65, 91), *range(97, 123)))) + "._%+-'"
_REWRITTEN = re.compile(r"(?i)(?:SRS[01]|prvs)[=+\-][A-Za-z0-9._%+\-=/]*$")  # by servers that forward: SRS, BATV
_DOMAIN = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9\-])")
# Begins with a plain set of characters, so that the search runs over letters quickly.
_NUMBERS = re.compile(r"[+(0-9][0-9 ().\-]{5,60}[0-9Xx]")
_ID = re.compile(r"(?<![0-9A-Za-z])[1-9]\d{5}(?:18|19|20)\d{9}[\dXx](?![0-9A-Za-z])")
# Latin letters alone keep a number from beginning or ending: Chinese is written without spaces.
_CARD = re.compile(
    r"(?<![0-9A-Za-z_.+\-])(?:\d{4}([ \-]?)\d{4}\1\d{4}\1\d{4}(?:\1?\d{1,3})?|3[47]\d{2}([ \-]?)\d{6}\2\d{5})"
    r"(?![0-9A-Za-z_\-]|\.\d)"
)
_IP = re.compile(r"(?<![0-9A-Za-z_.])\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![0-9A-Za-z_\-]|\.\d)")
_ENDED = r"(?![0-9A-Za-z_\-]|\.\d)"
_PHONES = tuple(
    re.compile(pattern + _ENDED)
    for pattern in (
        # E.164 with a plus; mobile and line in China; North America; Japan, numbers free of charge in Britain
        r"(?<![0-9A-Za-z_+])\+[1-9]\d{0,2}[ .\-]?(?:\(0?\d{1,4}\)[ .\-]?)?\d{1,5}(?:[ .\-]?\d{2,5}){1,5}",
        r"(?<![0-9A-Za-z_.+\-])(?:86[ \-]?)?1[3-9]\d([ \-]?)\d{4}\1\d{4}",
        r"(?<![0-9A-Za-z_.+\-])\(?0(?:10|2\d|[3-9]\d{2})\)?[ \-]?[2-8]\d{6,7}",
        r"(?<![0-9A-Za-z_.+\-])(?:1[ .\-])?(?:\([2-9]\d{2}\) ?[2-9]\d{2}[.\-]|[2-9]\d{2}([.\-])[2-9]\d{2}\1)\d{4}",
        r"(?<![0-9A-Za-z_.+\-])(?=[\d\-]{12,13}(?![\d\-]))0\d{1,4}-\d{1,4}-\d{3,4}",
    )
)
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)  # GB 11643-1999, modulo 11
_CHECKS = "10X98765432"


class Found(NamedTuple):
    """One piece of personal data in a text."""

    kind: str
    start: int
    end: int


class Pii:
    """Masks personal data (`<email>`, `<phone>`, `<id>`, `<ip>`, `<card>`), drops documents with it, or only tells.

    Evidence is how often each kind occurs, never the data itself.

    Args:
        action: what to do.
        kinds: what to look for.
    """

    name = "pii"

    def __init__(self, action: Literal["mask", "drop", "report"] = "mask", kinds: Sequence[str] = KINDS) -> None:
        if action not in ("mask", "drop", "report"):
            raise ValueError(f"action is {action!r}; it must be mask, drop or report")
        kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
        if unknown := set(kinds) - set(KINDS):
            raise ValueError(f"kinds has {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
        self._action, self._kinds = action, kinds

    def __call__(self, batch: Batch) -> Iterator[tuple[int, Verdict]]:
        for number, document in batch.living():
            counts, edits = Counter(), {}
            for path, text in document.leaves:
                if found := personal(text, self._kinds):
                    counts.update(one.kind for one in found)
                    edits[path] = masked(text, found)
            if counts:
                reason = "+".join(kind for kind in KINDS if kind in counts)
                acts = {"mask": {"edits": edits}, "drop": {}, "report": {"tells": True}}[self._action]
                yield number, Verdict(reason, dict(sorted(counts.items())), **acts)


def personal(text: str, kinds: Sequence[str] = KINDS) -> list[Found]:
    """Personal data in a text, in order, none within another."""
    found = list(_emails(text)) if "@" in text and "email" in kinds else []
    for match in _NUMBERS.finditer(text):
        found += _numbers(text, match.start(), match.end(), kinds)
    if not found:
        return found
    kept: list[Found] = []
    for one in sorted(found, key=lambda one: (one.start, -one.end)):
        if not kept or one.start >= kept[-1].end:
            kept.append(one)
    return kept


def masked(text: str, found: Sequence[Found]) -> str:
    """The text with the name of its kind for each piece."""
    parts, last = [], 0
    for one in found:
        parts += [text[last : one.start], f"<{one.kind}>"]
        last = one.end
    return "".join([*parts, text[last:]])


def _emails(text: str) -> Iterator[Found]:
    at = text.find("@")
    while at >= 0:
        if domain := _DOMAIN.match(text, at + 1):
            before = text[max(0, at - 64) : at]
            rewritten = _REWRITTEN.search(before)
            local = rewritten[0] if rewritten else before[len(before.rstrip(_LOCAL)) :].lstrip(".%+-'")
            if local and local[-1] != ".":
                yield Found("email", at - len(local), domain.end())
        at = text.find("@", at + 1)


def _numbers(text: str, start: int, end: int, kinds: Sequence[str]) -> Iterator[Found]:
    """What a stretch of digits holds; the first kind that fits has it."""
    stretch = text[start:end]
    count = len(stretch) - sum(map(stretch.count, " ().-+"))
    # Which kinds there is room for: most stretches are dates.
    room = {
        "id": count >= 17,
        "card": count >= 15,
        "ip": stretch.count(".") >= 3,
        "phone": count >= 10 or (count >= 8 and "+" in stretch),
    }
    taken: list[tuple[int, int]] = []
    for kind, fits in room.items():
        if not fits or kind not in kinds:
            continue
        patterns, right = _NUMBER_KINDS[kind]
        for pattern in patterns:
            for match in pattern.finditer(text, start, min(len(text), end + 1)):
                span = match.span()
                if right(match[0]) and not any(span[0] < last and first < span[1] for first, last in taken):
                    taken.append(span)
                    yield Found(kind, *span)


def is_id(number: str) -> bool:
    """Whether 18 characters are a Chinese identity number: a date of birth and the check digit (GB 11643-1999)."""
    try:
        date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    total = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, number, strict=False))
    return _CHECKS[total % 11] == number[17].upper()


def is_card(number: str) -> bool:
    """Whether digits are a payment card's: an issuer's range, and the check digit (ISO/IEC 7812-1, Luhn)."""
    digits = [int(char) for char in number if char.isdigit()]
    begin = int("".join(map(str, digits[:4])))
    issuer = (
        begin // 1000 == 4
        or 5100 <= begin < 5600
        or 2221 <= begin <= 2720
        or begin // 100 in (34, 37, 35, 62, 65, 36, 38)
        or begin == 6011
        or 6440 <= begin < 6500
    )
    if not issuer or len(set(digits)) < 2:
        return False
    doubled = [2 * digit - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(digits[-1::-2])) % 10 == 0


def is_address(number: str) -> bool:
    """Whether four numbers are an IPv4 address that somebody has: none of a local network, and not all below 32, as
    those of versions are.
    """
    try:
        address = ipaddress.IPv4Address(number)
        return address.is_global and max(address.packed) >= 32
    except ValueError:
        return False


def is_phone(number: str) -> bool:
    """Whether there are as many digits as a telephone number has (E.164: at most 15)."""
    count = sum(char.isdigit() for char in number)
    return 8 <= count <= 15


_NUMBER_KINDS = {
    "id": ((_ID,), is_id),
    "card": ((_CARD,), is_card),
    "ip": ((_IP,), is_address),
    "phone": (_PHONES, is_phone),
}
