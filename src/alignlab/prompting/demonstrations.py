"""Solved examples for few-shot prompts: where they come from, which are shown, in which order."""

import random
import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from alignlab.files.text import json_lines
from alignlab.prompting.technique import Question

Selection = Literal["first", "random", "nearest"]


class Demonstration(NamedTuple):
    """A solved example."""

    question: str
    answer: str
    reasoning: str = ""


def read_demonstrations(
    given: Sequence[Mapping[str, str]] | None, file: str | None, *, reasoning: bool = False
) -> list[Demonstration]:
    """From a config's list and from a .jsonl file, the list first; fields question, answer and, where `reasoning`,
    reasoning.

    Raises ValueError where there is none or a field is missing or unknown.
    """
    rows = [("demonstrations", dict(row)) for row in given or ()]
    if file is not None:
        rows += [(where, row) for _, where, row in json_lines(file, "demonstrations_file")]
    if not rows:
        raise ValueError("there are no demonstrations: give demonstrations=[...] or demonstrations_file")
    for where, row in rows:
        missing = {"question", "answer", *(["reasoning"] if reasoning else [])} - set(row)
        unknown = set(row) - set(Demonstration._fields)
        if missing or unknown:
            problem = f"lacks {', '.join(sorted(missing))}" if missing else f"has unknown {', '.join(sorted(unknown))}"
            raise ValueError(f"{where}: a demonstration {problem}; its fields are question, answer, reasoning")
    return [Demonstration(**{name: str(value) for name, value in row.items()}) for _, row in rows]


class Chooser:
    """`number` demonstrations for each question, never one that is the question itself.

    `first`: in the order given; `random`: drawn anew for every question from `seed` and its id; `nearest`: those that
    share most words with the question (Jaccard index), the nearest last, where it is read best.
    """

    def __init__(self, pool: Sequence[Demonstration], number: int | None, selection: Selection, seed: int = 0) -> None:
        if number is not None and not 1 <= number <= len(pool):
            raise ValueError(f"number={number} must lie in 1..{len(pool)}, the number of demonstrations")
        self.pool, self.number, self.selection, self.seed = list(pool), number or len(pool), selection, seed

    def __call__(self, question: Question) -> list[Demonstration]:
        pool = [one for one in self.pool if one.question.strip() != question.text.strip()]
        if self.selection == "random":
            rng = random.Random(f"{self.seed}|{question.id}")
            return rng.sample(pool, min(self.number, len(pool)))
        if self.selection == "nearest":
            words = _words(question.text)
            near = sorted(pool, key=lambda one: _overlap(words, _words(one.question)))  # stable: ties in given order
            return near[-self.number :]
        return pool[: self.number]


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


def _overlap(one: set[str], other: set[str]) -> float:
    return len(one & other) / max(1, len(one | other))
