"""Each limit by a text that breaks it alone; repetition against plain counting; languages."""

import random
from collections import Counter

from alignlab.corpus.documents import Batch, Document, read
from alignlab.corpus.letters import Letters
from alignlab.corpus.steps.language import Language, identifier, told
from alignlab.corpus.steps.quality import Quality
from alignlab.corpus.steps.repetition import AGAIN, TOP, repeated
from planted_texts import HAN, english_words

import numpy as np
import pytest

WORDS = english_words()
GOOD = "The ferry leaves the harbour at nine and returns to it with those that have been on the islands, "
GOOD += "where fishermen mend nets; tourists buy postcards, eat squid and ask about weather, boats, prices. "
GOOD += "Nobody answers before noon. Later, over coffee, an old captain tells stories that his daughter corrects, "
GOOD += "because she was there and he, as everyone knows, slept below deck through most of those storms."


def batch(*texts: str) -> Batch:
    documents = []
    for number, text in enumerate(texts):
        document = Document(number, b"", {"text": text})
        read(document, "text")
        documents.append(document)
    return Batch(documents)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD, None),
        ("The cat and the dog.", "min_words"),
        (" ".join(["a", "the", "of", "i"] * 20), "min_mean_word"),
        (" ".join([GOOD, *("incomprehensibilities counterrevolutionaries".split() * 60)]), "max_mean_word"),
        (f"{GOOD} {'x' * 1001} {GOOD}", "max_longest_word"),
        (f"{GOOD} {'# ' * 12}", "max_symbols"),
        ("\n".join(f"- {part}" for part in GOOD.split(", ")), "max_bullet_lines"),
        ("\n".join(f"{part}..." if n % 2 else part for n, part in enumerate(GOOD.split(", "))), "max_ellipsis_lines"),
        (f"{GOOD} {' '.join(str(n) for n in range(1000, 1030))}", "min_letter_words"),
        (" ".join(word for word in GOOD.split() if word.lower() not in ("the", "to", "and", "that", "have", "with")), "min_stop_words"),
        ("\n".join([GOOD, *["Read more about this and other stories"] * 9]), "max_same_lines"),
        (f"{GOOD} Lorem ipsum dolor.", "notices: lorem ipsum"),
    ],
)  # fmt: skip
def test_limits_of_the_english_web(text: str, reason: str | None) -> None:
    found = [verdict.reason for _, verdict in Quality("en_web")(batch(GOOD, text, GOOD))]
    assert found == ([] if reason is None else [reason])


def test_chinese_is_counted_in_characters_and_captions_have_own_limits() -> None:
    rng = random.Random(0)
    chinese = "".join(rng.choice(HAN) for _ in range(120)) + "。"
    assert list(Quality()(batch(chinese))) == []
    assert [v.reason for _, v in Quality()(batch(chinese[:40]))] == ["min_words"]
    assert [v.reason for _, v in Quality("en_web")(batch(chinese))] != []
    captions = Quality("caption")
    assert list(captions(batch("A dog.", "两只狗在草地上", "a 3D render of 2 cats"))) == []
    assert [v.reason for _, v in captions(batch("!!! ***", " ".join(["dog"] * 81)))] == ["min_letters", "max_words"]
    assert list(Quality("caption", max_words=None)(batch(" ".join(["dog"] * 81)))) == []


def test_repetition_against_plain_counting() -> None:
    """Random texts of few words, so that runs repeat; every size against lists and counters."""
    rng = random.Random(0)
    texts = []
    for number in range(60):
        few = WORDS[: (2, 5, 400)[number % 3]]
        texts.append(" ".join(rng.choice(few) for _ in range(rng.randint(3, 150))))
    tell = repeated(Letters(texts), np.ones(len(texts), bool))
    broke = Counter()
    for number, text in enumerate(texts):
        words = text.split()
        total, expected = sum(map(len, words)), {}
        for size, limit in TOP.items():
            runs = Counter(tuple(words[k : k + size]) for k in range(len(words) - size + 1))
            most = max(runs.values(), default=0)
            share = max((n * sum(map(len, run)) for run, n in runs.items() if n == most > 1), default=0) / total
            if share > limit:
                expected[f"repetition: most frequent {size} words"] = share
        for size, limit in AGAIN.items():
            met, covered = set(), set()
            for k in range(len(words) - size + 1):
                run = tuple(words[k : k + size])
                covered |= set(range(k, k + size)) if run in met else set()
                met.add(run)
            share = sum(len(words[k]) for k in covered) / total
            if share > limit:
                expected[f"repetition: {size} words again"] = share
        assert {name: share for name, share, _ in tell(number)} == pytest.approx(expected)
        broke.update(expected.keys())
    assert len(broke) >= 8


def test_languages() -> None:
    step = Language(keep=["zh"] if identifier() is None else ["en", "zh"])
    texts = batch("这是一个中文句子，说的是天气。", "Это русское предложение о погоде.", "ok")
    found = list(step(texts))
    assert [number for number, _ in found] == [1]
    assert texts.languages == ["zh", "ru", ""]
    assert told("ひらがなと漢字の文です")[0] == "ja"
    assert told("plain Latin letters") == ("", 0.0)


def test_languages_of_one_script_need_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignlab.corpus.steps.language.identifier", lambda: None)
    with pytest.raises(ValueError, match=r"keep names de, en.*pip install 'alignlab\[corpus\]'"):
        Language(keep=["en", "de", "zh"])
    Language(keep="zh")
    with pytest.raises(ValueError, match="confidence is 2"):
        Language(confidence=2)


def test_words_are_runs_of_letters_and_single_characters() -> None:
    letters = Letters(["Don't stop, ÉCOLE no. 2!", "", "我爱NLP。"])
    starts, ends = letters.words
    text = "don't stop, école no. 2!\n\n我爱nlp。\n"
    assert [text[a:b] for a, b in zip(starts, ends, strict=True)] == [
        "don",
        "t",
        "stop",
        "école",
        "no",
        "2",
        "我",
        "爱",
        "nlp",
    ]
    assert letters.bounds.tolist() == [0, 6, 6, 9]
    assert len(set(letters.hashes.tolist())) == 9
