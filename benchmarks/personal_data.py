"""What of the personal data in real mails `alignlab corpus`'s step `pii` finds: the mails that Python tests its parser with.

    python benchmarks/personal_data.py

48 mails of CPython (`test/test_email/data`), headers included: bounces, mailing lists, notices, most of them sent by
somebody once. Every piece with an @ and every four numbers with dots was looked at; what is said of each here is a
person's judgement, by the rules below. Mentions are counted as often as they stand there.
"""

import re
from collections import Counter
from pathlib import Path

from alignlab.corpus.steps.pii import personal

import test.test_email

AT = re.compile(r"[^\s<>:;,\"()\[\]]+@[^\s<>:;,\"()\[\]?]+")
QUAD = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d{3})")
# Identifiers of messages, of parts and in the notes of servers, which look like addresses and are nobody's
IDENTIFIER = re.compile(r"(?i)(?:message-id|content-id|envelope-id): *<?$|\bid <$")
LOCAL = re.compile(r"192\.168\.|127\.|10\.")


def mentions(text: str) -> list[tuple[str, int, int]]:
    """Kind and place of everything that was looked at."""
    found = []
    for match in AT.finditer(text):
        kind = "identifier" if IDENTIFIER.search(text[: match.start()][-30:]) else "address"
        found.append((kind, *match.span()))
    found += [("ip", *match.span()) for match in QUAD.finditer(text) if not LOCAL.match(match[0])]
    return found


def main() -> None:
    """Prints a row for each kind, and what was missed or is none."""
    rows, amiss = Counter(), []
    for file in sorted((Path(test.test_email.__file__).parent / "data").glob("*.txt")):
        text = file.read_bytes().decode("latin-1")
        told = {(one.start, one.end): one.kind for one in personal(text)}
        for kind, start, end in mentions(text):
            rows[kind, "there"] += 1
            over = [span for span in told if span[0] < end and start < span[1]]
            exact = (start, end) in told
            rows[kind, "found" if exact else "in part" if over else "missed"] += 1
            if not exact and kind != "identifier":
                amiss.append(f"{file.name}: {text[start:end]} ({'in part' if over else 'missed'})")
            for span in over:
                del told[span]
        rows["none of these", "found"] += len(told)
        amiss += [f"{file.name}: {text[start:end]} is told as {kind}" for (start, end), kind in told.items()]
    for kind in ("address", "identifier", "ip", "none of these"):
        print(kind, {what: rows[kind, what] for what in ("there", "found", "in part", "missed")})
    print("\n".join(amiss))


if __name__ == "__main__":
    main()
