"""What a language model says before its training and after: a number can rise while the model says "YYYY"."""

import json
import logging
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from alignlab.callbacks.evaluators.evaluator import evaluation, read_by
from alignlab.files.text import json_lines
from alignlab.files.writing import write_text
from alignlab.models.language.ends import ends_of
from alignlab.types.language import LabelledBatch, PreferenceBatch, TokenBatch

log = logging.getLogger(__name__)

Row = dict[str, Any]


class Answers(Callback):
    """Writes `samples/answers.jsonl` when training has ended, and prints it: a few held-out prompts, what the model
    said to them before and what it says now, each the likeliest token at a time.

    Ranks: all of them gather a sharded model; rank zero alone answers.

    A resumed run keeps what was said before its first step. After means the last weights, whichever are exported.

    Args:
        num_prompts: rows of the table.
        max_new_tokens: of an answer.
        opening: tokens of the text that stand for a prompt where the data have none.

    Raises:
        ValueError: a number below 1.
    """

    def __init__(self, num_prompts: int = 4, max_new_tokens: int = 48, opening: int = 5) -> None:
        for name, value in (("num_prompts", num_prompts), ("max_new_tokens", max_new_tokens), ("opening", opening)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        self.num_prompts, self.max_new_tokens, self.opening = num_prompts, max_new_tokens, opening

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        file = _folder(trainer) / "answers_before.jsonl"
        if not (trainer.global_step > 0 and file.exists()) and hasattr(pl_module.net, "generate"):
            rows = self._rows(trainer, pl_module)
            if trainer.is_global_zero:
                write_text(file, _lines(rows))

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.global_step == 0 or not hasattr(pl_module.net, "generate"):
            return
        rows = self._rows(trainer, pl_module)
        if not trainer.is_global_zero:
            return
        before = [row for _, _, row in json_lines(_folder(trainer) / "answers_before.jsonl")]
        said = {row["prompt"]: row["answer"] for row in before}
        table = [
            {"prompt": row["prompt"], "before": said.get(row["prompt"]), "after": row["answer"], "data": row["data"]}
            for row in rows
        ]
        write_text(_folder(trainer) / "answers.jsonl", _lines(table))
        print_table(table)

    def _rows(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> list[Row]:
        """Prompt, answer, and the text of the data, on rank zero."""
        tokenizer = trainer.datamodule.tokenizer
        batch = next(iter(read_by(trainer, "answers", "val_dataloader").val_dataloader()))
        with evaluation(trainer, pl_module) as module:
            if not trainer.is_global_zero:
                return []
            opened = openings(batch, self.num_prompts, self.opening)
            settings = (getattr(module.net, name, None) for name in ("config", "generation_config"))
            answers = answer(
                module.net,
                [prompt for prompt, _ in opened],
                self.max_new_tokens,
                pad=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
                ends=sorted(ends_of(*settings, tokenizer, ())),
            )
        texts = [[list(p), list(a), list(d)] for (p, d), a in zip(opened, answers, strict=True)]
        keys = ("prompt", "answer", "data")
        return [dict(zip(keys, tokenizer.batch_decode(each, skip_special_tokens=True), strict=True)) for each in texts]


def openings(
    batch: TokenBatch | PreferenceBatch | LabelledBatch, number: int, opening: int
) -> list[tuple[list[int], list[int]]]:
    """Prompt and response of the first rows of a batch, as ids; of compared texts the preferred ones, of labelled ones
    the good.

    Where hardly anything stands before the response, its first `opening` tokens are the prompt.
    """
    length = batch.ids.shape[1]
    if isinstance(batch, PreferenceBatch):
        rows = list(dict.fromkeys(batch.first.tolist()))
    else:
        good = batch.label.tolist() if isinstance(batch, LabelledBatch) else [True] * len(batch.ids)
        rows = [row for row, chosen in enumerate(good) if chosen]
    found: dict[tuple[int, ...], list[int]] = {}
    for row in rows:
        places = batch.target[(batch.target // length) == row] % length
        if isinstance(batch, TokenBatch) and batch.packed:  # the first text of the row
            places = places[batch.document[row, places] == 1]
        if not len(places):
            continue
        ids, start, end = batch.ids[row].tolist(), int(places[0]), int(places[-1]) + 1
        start = start if start > 1 else min(start + opening, end)
        found.setdefault(tuple(ids[:start]), ids[start:end])
        if len(found) == number:
            break
    return [(list(prompt), response) for prompt, response in found.items()]


@torch.no_grad()
def answer(net: Any, prompts: list[list[int]], max_new_tokens: int, *, pad: int, ends: list[int]) -> list[list[int]]:
    """Greedy answers without the prompts and without what comes after an end of text."""
    device, longest = next(net.parameters()).device, max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    said: Tensor = net.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        pad_token_id=pad,
        eos_token_id=ends,
    )
    answers = []
    for row in said[:, longest:].tolist():
        cut = next((place for place, token in enumerate(row) if token in ends), len(row))
        answers.append(row[:cut])
    return answers


def print_table(rows: list[Row]) -> None:
    """The table in the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("prompt", "before", "after", title="answers before and after (greedy)", show_lines=True)
    for row in rows:
        table.add_row(*(Text(row[key] or "") for key in ("prompt", "before", "after")))
    Console(highlight=False).print(table)


def _folder(trainer: lightning.Trainer) -> Path:
    return Path(trainer.default_root_dir) / "samples"


def _lines(rows: list[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
