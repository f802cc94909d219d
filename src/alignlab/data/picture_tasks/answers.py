"""What people answer: written alike, and in kinds."""

import functools
import re
from collections import Counter
from collections.abc import Iterable, Sequence

NUMBERS = ("none", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(max(0, place - 1)) for place, word in enumerate(NUMBERS)}
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = re.compile(r"[;/\[\]\"{}()=+\\_><@`?!]|[,.](?!\d)|(?<!\w)-|-(?!\w)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d)")


@functools.lru_cache(100_000)  # people say the same again and again
def clean_answer(answer: str) -> str:
    """An answer in lower case without articles and punctuation, numbers as digits, in the manner of VQA's own
    evaluation (GT-Vision-Lab/VQA, vqaEval.py; without its list of contractions).
    """
    words = _PUNCTUATION.sub(" ", _THOUSANDS.sub("", answer.lower())).split()
    kept = [_DIGITS.get(word, word) for word in words if word not in _ARTICLES]
    return " ".join(kept) or answer.strip().lower()


def shared(answers: Sequence[str], worth: float = 1.0) -> list[tuple[str, float]]:
    """Different answers in the order of their first mention, each with the share of people who gave it, times `worth`.

    salesforce/ALBEF b9727e4 dataset/vqa_dataset.py:54-66.
    """
    return [(answer, worth * number / len(answers)) for answer, number in Counter(answers).items()]


def worth_of(share: float) -> float:
    """What an answer is worth that a share s of people gave, min(1, 3 s): of ten people what VQA's evaluation gives,
    the mean of min(1, others who say so / 3) over all nine of them (arXiv:1505.00468, footnote 1).
    """
    return min(1.0, 3 * share)


def kind_of_answer(answers: Iterable[tuple[str, float]]) -> str:
    """VQA's three kinds of questions, by the most frequent answer: yes_no, number or other."""
    answer, _ = max(answers, key=lambda one: one[1])
    if answer.lower() in ("yes", "no"):
        return "yes_no"
    return "number" if answer[:1].isdigit() or answer.lower() in NUMBERS else "other"
