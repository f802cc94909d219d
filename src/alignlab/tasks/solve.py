"""How often a model solves each prompt, by a rule: which prompts are worth training on."""

import json
from collections.abc import Sequence
from typing import Any

from alignlab.data.language.verifiable import Checker, made, unfit_checker
from alignlab.evaluation.verifying.checkers import check
from alignlab.files.writing import write_text
from alignlab.prompting.technique import Reply
from alignlab.tasks.draws.several import Several, check_sampled, draw
from alignlab.tasks.inputs import Item
from alignlab.tasks.job import Job, Subject
from alignlab.tasks.predictions import Prediction

FILE = "solvable.jsonl"


class Solve:
    """Draws several answers to every prompt and checks them; `solvable.jsonl` of the run directory has the prompts that
    are solved neither too seldom nor too often, with their columns and the share, for `data=verifiable data.path=`.

    Needs sampling (`sampling=varied`). The prompt technique has no part in it.

    Args:
        samples: answers to each prompt.
        low, high: least and largest share that is kept.
        answer: the column that holds what is right.
        checker: of rows that name none.
        instruction: what every prompt ends with.
        tasks: `named_films` or tasks of reasoning-gym, instead of an input, with `size` prompts each.
    """

    needs = "backend"

    def __init__(
        self,
        samples: int = 8,
        low: float = 0.2,
        high: float = 0.8,
        answer: str = "answer",
        checker: Checker = "exact",
        instruction: str = "",
        tasks: Sequence[str] = (),
        size: int = 100,
    ) -> None:
        if samples < 2:
            raise ValueError(f"samples is {samples}; it must be at least 2")
        if not 0 <= low <= high <= 1:
            raise ValueError(f"low is {low}; it must lie in 0..high={high}, and that be at most 1")
        self.samples, self.low, self.high = samples, low, high
        self.answer, self.checker, self.instruction = answer, checker, instruction
        self.tasks, self.size = list(tasks), size

    def run(self, subject: Subject, job: Job) -> dict[str, float]:
        """Rows: input, share solved, the answers."""
        check_sampled(self.samples, subject.asker.sampling.temperature)
        items = self._made(job.seed) if self.tasks else job.items()
        missing = job.predictions.missing(items)

        def row(item: Item, replies: list[Reply], error: str | None) -> None:
            job.predictions.add(_failed(item, error) if error is not None else self._row(item, replies))

        draw(missing, Several(self.samples, self.instruction), subject.asker, row, self._problem)
        rows = job.rows(item.id for item in items)
        by_id = {item.id: item for item in items}
        whole = [row for row in rows if row["error"] is None]
        kept = [row for row in whole if self.low <= row["solved"] <= self.high]
        lines = [{**by_id[row["id"]].fields, "solved": row["solved"]} for row in kept]
        write_text(job.run_dir / FILE, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        shown = [[row["id"], row["input"], row["solved"]] for row in whole]
        job.table("solved", ["id", "prompt", "share"], shown)
        count = max(1, len(whole))
        return {
            "solved": sum(row["solved"] for row in whole) / count,
            "kept": float(len(kept)),
            "kept_share": len(kept) / count,
            "never_solved": sum(row["solved"] == 0 for row in whole) / count,
            "always_solved": sum(row["solved"] == 1 for row in whole) / count,
            "failed": float(len(rows) - len(whole)),
        }

    def _row(self, item: Item, replies: list[Reply]) -> Prediction:
        said = [reply.text for reply in replies]
        try:
            scores = [check(text, item.fields[self.answer], self._checker(item)) for text in said]
        except ValueError as error:
            return _failed(item, str(error))
        share = sum(scores) / len(scores)
        return {"id": item.id, "input": item.text, "solved": share, "replies": said, "error": None}

    def _problem(self, item: Item) -> str | None:
        """Why an item isn't asked."""
        if item.error is None and item.fields.get(self.answer) is None:
            return f"no column {self.answer}, which holds what is right"
        return item.error or unfit_checker(self._checker(item), self.checker)

    def _checker(self, item: Item) -> str:
        return item.fields.get("checker") or self.checker

    def _made(self, seed: int) -> list[Item]:
        return [Item(place, row["prompt"], row) for place, row in made(self.tasks, self.size, seed)]


def _failed(item: Item, error: str) -> Prediction:
    row: dict[str, Any] = {"id": item.id, "input": item.text, "solved": None, "replies": [], "error": error}
    return row
