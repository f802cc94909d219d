"""Reading an answer out of a reply, and whether it is right: two questions, answered apart."""

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Literal, get_args

from alignlab.files.text import lines_of

AnswerForm = Literal["text", "line", "number", "choice", "yes_no", "boxed"]

_MARKER = re.compile(r"\b(?:the\s+)?(?:final\s+)?answer\s*(?:\([^)]*\))?\s*(?:is|:|=)\s*:?\s*", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.])[-+−]?\s?[$€£]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\d])")
_CHOICE_ALONE = re.compile(r"^\W*\(?([A-J])\)?(?:[).:\s]|$)")
_CHOICE_NAMED = re.compile(r"\b(?:option|choice)\s+\(?([A-J])\)?(?!\w)|\(([A-J])\)", re.IGNORECASE)
_YES_NO = re.compile(r"\b(yes|no|true|false)\b", re.IGNORECASE)


def extract(reply: str, form: AnswerForm) -> str | None:
    """The answer that a reply gives, or None if it gives none in this form.

    What follows the last "the answer is" goes before everything else. Without it: `number` takes the last number,
    `choice` a letter A to J that opens the reply or is called an option, `yes_no` the first of the two, `boxed` the
    last LaTeX box, `line` the first line that isn't empty, `text` everything.
    """
    if form not in get_args(AnswerForm):
        raise ValueError(f"answer={form} is none of {', '.join(get_args(AnswerForm))}")
    reply = reply.strip()
    if form == "text":
        return reply or None
    marked = [reply[match.end() :] for match in _MARKER.finditer(reply)]
    after = marked[-1].strip() if marked else None
    if form == "number":
        match = _NUMBER.findall(after)[:1] if after is not None else []
        match = match or _NUMBER.findall(reply)[-1:]
        return _plain_number(match[0]) if match else None
    if form == "choice":
        return _choice(after) if after is not None else _choice(reply)
    if form == "yes_no":
        match = _YES_NO.search(after if after is not None else reply)
        return {"true": "yes", "false": "no"}.get(match[1].lower(), match[1].lower()) if match else None
    if form == "boxed":
        return _boxed(reply)
    lines = [line.strip() for line in lines_of(after if after is not None else reply) if line.strip()]
    return lines[0] if lines else None


def correct(answer: str | None, target: str | Sequence[str], form: AnswerForm) -> bool:
    """Whether an extracted answer equals a target, or one of several.

    Numbers are compared as numbers; text without regard to case, spaces, articles and a full stop at the end. None is
    never right.
    """
    if answer is None:
        return False
    targets = [target] if isinstance(target, str) else list(target)
    return any(key_of(answer, form) == key_of(str(one), form) for one in targets)


def key_of(answer: str, form: AnswerForm) -> str:
    """What two spellings of the same answer have in common."""
    if form == "number":
        try:
            number = Decimal(_plain_number(answer))
            return str(number.normalize() + 0)  # + 0: minus zero is zero
        except InvalidOperation:
            pass
    words = re.sub(r"\s+", " ", answer).strip().rstrip(".!").casefold()
    return re.sub(r"^(?:a|an|the) ", "", words)


def _plain_number(text: str) -> str:
    return re.sub(r"[,$€£\s]", "", text).replace("−", "-").removeprefix("+")


def _choice(text: str) -> str | None:
    alone = _CHOICE_ALONE.search(text)
    if alone and not re.match(r"^\W*[AI] [a-z]", text):  # "A dog ..." and "I think ..." are no choices
        return alone[1]
    named = _CHOICE_NAMED.findall(text)
    return next(letter for letter in named[-1] if letter).upper() if named else None


def _boxed(text: str) -> str | None:
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 0, start + len("\\boxed")
    for place in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[begin + 1 : place].strip() or None
    return None
