"""Personal data in generated texts, against exact labels; check digits; what only looks like such data."""

import random

from alignlab.corpus.documents import Batch, Document, read
from alignlab.corpus.steps.pii import KINDS, Pii, is_card, is_id, masked, personal
from planted_texts import chinese_id, english_words, luhn

import pytest


def _email(rng: random.Random) -> str:
    local = rng.choice(["jo", "maria.silva", "li_wei", "x-y+news", "k99"])
    return f"{local}@{rng.choice(['example.com', 'mail.uni-bonn.de', 'qq.com', 'a.co.uk'])}"


def _phone(rng: random.Random) -> str:
    n = lambda count: "".join(rng.choice("0123456789") for _ in range(count))  # noqa: E731
    second = rng.choice("3456789")
    forms = [
        f"+1 ({rng.randint(200, 999)}) {rng.randint(200, 999)}-{n(4)}",
        f"({rng.randint(200, 999)}) {rng.randint(200, 999)}-{n(4)}",
        f"{rng.randint(200, 999)}-{rng.randint(200, 999)}-{n(4)}",
        f"+49 30 {rng.randint(100, 999)}{n(5)}",
        f"+44 20 {n(4)} {n(4)}",
        f"+86 1{second}{n(1)} {n(4)} {n(4)}",
        f"1{second}{n(9)}",
        f"1{second}{n(1)}-{n(4)}-{n(4)}",
        f"010-{rng.randint(2, 8)}{n(7)}",
        f"0755-{rng.randint(2, 8)}{n(7)}",
    ]
    return rng.choice(forms)


def _card(rng: random.Random) -> str:
    begin = rng.choice(["4", "51", "55", "6011", "62"])
    digits = luhn(begin + "".join(rng.choice("0123456789") for _ in range(15 - len(begin))))
    return rng.choice([digits, " ".join(digits[k : k + 4] for k in range(0, 16, 4))])


MAKE = {
    "email": _email,
    "phone": _phone,
    "id": chinese_id,
    "ip": lambda rng: (
        f"{rng.choice([8, 52, 91, 140, 203])}.{rng.randint(32, 250)}.{rng.randint(1, 250)}.{rng.randint(1, 250)}"
    ),
    "card": _card,
}
# What is none, though it has digits and dots.
DECOYS = (
    "2024-03-15", "10:24:33", "version 3.11.7", "1.2.3.4", "192.168.0.1", "127.0.0.1", "ISBN 978-3-16-148410-0", "1,234,567.89",
    "1234567890123456", "4111111111111112", "12345678", "300x200", "@home", "user@localhost", "0.123456789", "1700000000000",
    "3.14159265358979", "110105194912310021", "2001:db8::1", "arXiv:1912.03098", "10.1145/3292500.3330701", "$1,000,000",
)  # fmt: skip


def test_precision_and_recall_on_generated_texts() -> None:
    rng, words = random.Random(0), english_words()
    right = {kind: 0 for kind in KINDS}
    planted = {kind: 0 for kind in KINDS}
    told = {kind: 0 for kind in KINDS}
    for _ in range(600):
        parts, labels, length = [], set(), 0
        for _ in range(6):
            filler = " ".join(rng.choice(words) for _ in range(5)) if rng.random() < 0.7 else "请联系我们"
            parts.append(filler)
            length += len(filler) + 1
            kind = rng.choice([*KINDS, None, None])
            piece = MAKE[kind](rng) if kind else rng.choice(DECOYS)
            if kind:
                labels.add((kind, length, length + len(piece)))
            parts.append(piece)
            length += len(piece) + 1
        found = {tuple(one) for one in personal(" ".join(parts))}
        for kind in KINDS:
            mine = {label for label in labels if label[0] == kind}
            planted[kind] += len(mine)
            told[kind] += sum(one[0] == kind for one in found)
            right[kind] += len(mine & found)
    for kind in KINDS:
        assert right[kind] / planted[kind] >= 0.95, (kind, right, planted)
        assert right[kind] / told[kind] >= 0.95, (kind, right, told)


@pytest.mark.parametrize("text", DECOYS)
def test_what_only_looks_like_it(text: str) -> None:
    assert personal(f"see {text} for more") == []


def test_check_digits() -> None:
    assert is_id("11010519491231002X") and not is_id("110105194912310021")  # the example of GB 11643-1999
    assert not is_id("11010519491331002X")  # no such month
    assert is_card("4111 1111 1111 1111") and is_card("378282246310005")
    assert not is_card("4111 1111 1111 1112") and not is_card("1111 1111 1111 1117")


def test_a_mask_leaves_the_rest_as_it_is() -> None:
    text = "Write to jo@example.com (or call 617-542-5942), 身份证11010519491231002X。"
    assert masked(text, personal(text)) == "Write to <email> (or call <phone>), 身份证<id>。"
    assert masked("mailto:jo@example.com.", personal("mailto:jo@example.com.")) == "mailto:<email>."


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("From SRS0=aO/p=ON=bag.example.org=None@bounce2.example.com  Fri", "From <email>  Fri"),
        ("'jo@example.com' and o'neil@example.com", "'<email>' and <email>"),
        ("in the USA, or 0800-89-1131  in  the  UK", "in the USA, or <phone>  in  the  UK"),
        ("03-1234-5678, not 0-13-110362-8 or 08-11-2014", "<phone>, not 0-13-110362-8 or 08-11-2014"),
    ],
)
def test_what_real_mails_and_manuals_hold(text: str, wanted: str) -> None:
    assert masked(text, personal(text)) == wanted


def test_actions() -> None:
    def batch() -> Batch:
        document = Document(0, b"", {"text": "I am jo@example.com"})
        read(document, "text")
        return Batch([document])

    for action, edits, tells in (
        ("mask", {("text",): "I am <email>"}, False),
        ("drop", None, False),
        ("report", None, True),
    ):
        ((_, verdict),) = Pii(action=action)(batch())
        assert (verdict.edits, verdict.tells, verdict.evidence) == (edits, tells, {"email": 1})
    assert list(Pii(kinds=["card"])(batch())) == []
    with pytest.raises(ValueError, match="kinds has mail; there are email"):
        Pii(kinds=["mail"])
