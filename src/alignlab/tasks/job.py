"""What the door hands to a task, and what a task hands back."""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from alignlab.inference.backend import Backend, LoadReport
from alignlab.prompting.asking import Asker
from alignlab.prompting.technique import Technique
from alignlab.tasks.fields import QUESTIONS, Form
from alignlab.tasks.inputs import Item, read_items
from alignlab.tasks.predictions import Prediction, Predictions

Needs = Literal["backend", "scorer", "system", "programs", "any"]


class Subject(NamedTuple):
    """A language model that is ready to be asked."""

    backend: Backend
    tokenizer: Any
    technique: Technique
    asker: Asker
    loaded: LoadReport
    context_length: int | None  # tokens; None where the model has no limit of its own
    dtype: str = "float32"
    resident_before: int = 0  # bytes of this process before the model was loaded


class Opened(NamedTuple):
    """A model of whatever kind, under the name that it was asked for by."""

    name: str
    subject: Any  # a Subject, a Rewarded or a VisionLanguage


@dataclass
class Job:
    """One inference run: what is asked, where the answers go."""

    run_dir: Path
    predictions: Predictions
    prompt_text: str | None = None
    input: str | None = None
    model: str | None = None
    seed: int = 0
    batch_size: int = 8
    program: Sequence[str] = ()  # the command that started this run, without overrides
    settings: Sequence[str] = ()  # the root keys of this run's config as overrides, for programs that it starts
    pipe: TextIO = field(default_factory=lambda: sys.stdin)
    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))

    def items(self, form: Form = QUESTIONS) -> list[Item]:
        """What is to be worked on; see `read_items`."""
        return read_items(self.prompt_text, self.input, self.pipe, form)

    def answer(self, items: Sequence[Item], row: Callable[[Item], Prediction]) -> list[Prediction]:
        """Rows of all items in their order; those without a finished one are made now and kept one by one."""
        for item in self.predictions.missing(items):
            self.predictions.add(row(item))
        return self.rows(item.id for item in items)

    def rows(self, order: Iterable[str]) -> list[Prediction]:
        """All rows in this order. Raises ValueError, the first row's error, if every item has failed."""
        rows = self.predictions.sort(order)
        errors = [row["error"] for row in rows if row.get("error") is not None]
        if errors and len(errors) == len(rows):
            raise ValueError(errors[0])
        return rows

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], limit: int = 20) -> None:
        """Prints rows, at most `limit` of them, numbers to the right and long texts cut."""
        table = Table(title=title)
        for number, column in enumerate(columns):
            numeric = all(isinstance(row[number], int | float) for row in rows[:limit])
            table.add_column(column, justify="right" if numeric else "left", overflow="fold")
        for row in rows[:limit]:
            table.add_row(*map(_cell, row))
        self.console.print(table)
        if len(rows) > limit:
            self.console.print(f"... and {len(rows) - limit} more in {self.predictions.file}")


class Task(Protocol):
    """Something to do with a model. `needs` says what `run` gets: a `Subject`, that or a `Rewarded`, a
    `VisionLanguage`, None, or with "any" a list of `Opened`: the run's model and, where the task has one, its `other`.
    """

    needs: Needs

    def run(self, subject: Any, job: Job) -> dict[str, float]:
        """Writes rows and gives the run's numbers by name; the first is its objective."""
        ...


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = " ".join(str(value).split())
    return escape(text if len(text) <= 90 else text[:87] + "...")
