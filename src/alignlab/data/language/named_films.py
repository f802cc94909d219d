"""Openings of the built-in reviews with a rule that a small model keeps now and then: `tasks=[named_films]`."""

import random
from collections.abc import Iterator
from typing import Any

from alignlab.data.language.preference_texts import opening
from alignlab.data.language.rated_reviews import rated_reviews

WORDS = r"\b(film|movie|comedy|drama)\b"


def named_films(size: int, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and row of `size` openings of movie reviews, drawn by `seed`; all 9,215 where `size` is larger.

    Right is to say within the response what is reviewed: a film, a movie, a comedy or a drama. One phrase for all
    prompts does it, so the task tells whether a method finds and keeps what is rewarded, and nothing of reasoning.
    """
    starts = {text: None for whole in rated_reviews().texts if (text := opening(whole, 2, 6)) is not None}
    for number, start in enumerate(random.Random(seed).sample(list(starts), min(size, len(starts)))):
        yield f"named_films[{number}]", {"prompt": start, "answer": WORDS, "checker": "regex"}
