"""Answers are read out of replies as people write them; right and wrong are judged afterwards."""

from alignlab.prompting.answers import AnswerForm, correct, extract

import pytest


@pytest.mark.parametrize(
    ("reply", "form", "answer"),
    [
        (" Paris.\n", "text", "Paris."),
        ("  ", "text", None),
        ("\n Paris\nQuestion: and", "line", "Paris"),
        ("So the answer is Paris.\nNext", "line", "Paris."),
        ("Paris,\u2028in\x85\x0cFrance\rNext", "line", "Paris,\u2028in\x85\x0cFrance"),
        ("There are 4 + 3 = 7 pens, so 5 are left. The answer is 5.", "number", "5"),
        ("The answer is 3. No, wait: the answer is $1,234.50, of 9 in all.", "number", "1234.50"),
        ("It costs 12 and then 1,000,000", "number", "1000000"),
        ("it falls to -3 degrees", "number", "-3"),
        ("The answer is not known, 7 perhaps", "number", "7"),
        ("none at all", "number", None),
        ("Model X3b has none", "number", None),
        ("Answer: (B) the dog", "choice", "B"),
        ("The answer is C.", "choice", "C"),
        ("D", "choice", "D"),
        ("b is wrong, so option (A) it is", "choice", "A"),
        ("A dog barks", "choice", None),
        ("I think that cats do", "choice", None),
        ("Yes, because no cat barks.", "yes_no", "yes"),
        ("That is false.", "yes_no", "no"),
        ("nobody knows", "yes_no", None),
        (r"thus \boxed{1} and \boxed{\frac{1}{2}}", "boxed", r"\frac{1}{2}"),
        (r"thus \boxed{1", "boxed", None),
    ],
)
def test_extract(reply: str, form: AnswerForm, answer: str | None) -> None:
    assert extract(reply, form) == answer


def test_an_unknown_form() -> None:
    with pytest.raises(ValueError, match=r"answer=word is none of text, line"):
        extract("x", "word")


@pytest.mark.parametrize(
    ("answer", "target", "form", "right"),
    [
        ("5.0", "5", "number", True),
        ("1,000", "1000", "number", True),
        ("-0", "0", "number", True),
        ("5", "50", "number", False),
        ("The  Eiffel Tower.", "eiffel tower", "line", True),
        ("Paris", ["London", "paris"], "line", True),
        ("Paris", ["London"], "line", False),
        (None, "", "line", False),
    ],
)
def test_correct(answer: str | None, target: str | list[str], form: AnswerForm, right: bool) -> None:
    assert correct(answer, target, form) is right
