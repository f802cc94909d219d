"""`items.jsonl`: what a language model says to each item of a task, for curves over a ladder of runs."""

import json
from pathlib import Path
from typing import Any

import lightning

from alignlab.callbacks.evaluators.evaluator import Evaluator, read_by
from alignlab.files.writing import write_text


class ItemRecords(Evaluator):
    """Answers the data's held-out items greedily after the last validation, logs `val/exact_match` and writes one row
    an item to `<run directory>/items.jsonl`: id, task, target, prediction, target_logprobs (nats a token of the
    target), correct.

    Ranks: all of them gather a sharded net and answer; rank zero alone writes.
    """

    def __init__(self) -> None:
        super().__init__("end")

    def evaluate(self, trainer: lightning.Trainer, module: lightning.LightningModule, last: bool) -> dict[str, float]:
        """Share of the items whose answer is the target."""
        items = read_by(trainer, "items", "items").items
        rows = module.answer_items(items, trainer.datamodule.tokenizer)
        if trainer.is_global_zero:
            write_text(Path(trainer.default_root_dir) / "items.jsonl", "".join(map(_line, rows)))
        return {"exact_match": sum(row["correct"] for row in rows) / len(rows)}


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
