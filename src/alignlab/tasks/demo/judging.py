"""What the demo does with texts: how good they are to a reward model, how likely to a language model."""

from typing import NamedTuple

from alignlab.tasks.fields import TEXTS
from alignlab.tasks.inputs import Item
from alignlab.tasks.job import Subject
from alignlab.tasks.rewards import Rewarded, reward_rows
from alignlab.tasks.score import Score


class Judged(NamedTuple):
    """A text with its numbers, or why it has none."""

    text: str
    numbers: dict[str, float]  # the first is the one that texts are ordered by
    error: str | None


def judged(subject: Rewarded | Subject, before: str, texts: str) -> list[Judged]:
    """The lines of `texts`, each after `before`, as `task=score` judges them; best first, failed ones last.

    Raises ValueError where there is no text.
    """
    lines = [line for line in texts.splitlines() if line.strip()]
    if not lines:
        raise ValueError("texts, a line each, are missing")
    items = [_item(str(number), before, line) for number, line in enumerate(lines)]
    if isinstance(subject, Rewarded):
        rows = reward_rows(subject, items)
        names = {"normalised": "standard deviations from the mean", "reward": "reward", "tokens": "tokens"}
    else:
        rows = Score().rows(subject, items)
        names = {"bits_per_byte": "bits per byte", "perplexity": "perplexity", "tokens": "tokens"}
    found = [
        Judged(line, {} if row["error"] else {name: row[key] for key, name in names.items()}, row["error"])
        for line, row in zip(lines, rows, strict=True)
    ]
    sign = -1 if isinstance(subject, Rewarded) else 1  # few bits are a likely text
    first = next(iter(names.values()))
    return sorted(found, key=lambda one: (one.error is not None, sign * one.numbers.get(first, 0.0)))


def _item(id: str, before: str, text: str) -> Item:
    row = {"prompt": before, "completion": text} if before.strip() else {"text": text}
    try:
        (asked,) = TEXTS.read(row)
    except ValueError as error:
        return Item(id, text, row, error=str(error))
    return Item(id, asked.text, {**row, **asked.settings}, asked.before)
