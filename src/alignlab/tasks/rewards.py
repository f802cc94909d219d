"""What a reward model gives texts, rendered as at its training; of pairs, how often it prefers the chosen one."""

from typing import Any, NamedTuple

import torch

from alignlab.data.language.rendering import Renderer
from alignlab.methods.rlhf.reward import scored_in_parts
from alignlab.models.language.context import path_context
from alignlab.models.language.paths import load_tokenizer
from alignlab.models.language.reward import RewardModel, load_reward_model
from alignlab.tasks.inputs import Item
from alignlab.tasks.job import Job

_UNLIMITED = 2**30  # ids


class Rewarded(NamedTuple):
    """A reward model with what reads texts for it."""

    model: RewardModel
    renderer: Renderer
    context_length: int | None  # tokens


def load_rewarded(path: str) -> Rewarded:
    """The reward model of a run directory or export, in float32.

    Raises:
        ValueError: there is none.
    """
    return Rewarded(load_reward_model(path), Renderer(load_tokenizer(path), _UNLIMITED), path_context(path))


def rewards(subject: Rewarded, items: list[Item], job: Job) -> dict[str, float]:
    """Writes a row an item and gives the mean reward; with pairs among the items, first the share of them whose chosen
    text has the higher reward (an equal one counts half).
    """
    missing = job.predictions.missing(items)
    for start in range(0, len(missing), job.batch_size):
        for row in reward_rows(subject, missing[start : start + job.batch_size]):
            job.predictions.add(row)
    rows = job.rows(item.id for item in items)
    columns = ["id", "input", "tokens", "reward", "normalised"]
    job.table("rewards", columns, [[row[column] for column in columns] for row in rows])
    by_id = {row["id"]: row["reward"] for row in rows if row["error"] is None}
    pairs = [
        (by_id[id], by_id[other])
        for id in by_id
        if id.endswith(".chosen") and (other := id.removesuffix("chosen") + "rejected") in by_id
    ]
    right = sum((first > second) + 0.5 * (first == second) for first, second in pairs)
    accuracy = {"accuracy": right / len(pairs)} if pairs else {}
    return accuracy | {"mean_reward": sum(by_id.values()) / len(by_id), "failed": float(len(rows) - len(by_id))}


def reward_rows(subject: Rewarded, items: list[Item]) -> list[dict[str, Any]]:
    """A row for each text: its reward, and the same in the training's standard deviations from its mean."""
    rows, ids = [], []
    for item in items:
        row = {"id": item.id, "input": item.text, "tokens": None, "reward": None, "normalised": None, "error": None}
        try:
            ids.append(_ids(subject, item))
            row["tokens"] = len(ids[-1])
        except ValueError as error:
            row["error"] = str(error)
        rows.append(row)
    model = subject.model
    if ids:
        with torch.no_grad():
            scores = scored_in_parts(ids, model, len(ids), model.mean.device)
        values = iter(zip(scores.tolist(), ((scores - model.mean) / model.std).tolist(), strict=True))
        for row in rows:
            if row["error"] is None:
                row["reward"], row["normalised"] = next(values)
    return rows


def _ids(subject: Rewarded, item: Item) -> list[int]:
    item.check()
    before, text = item.fields.get("example", ("", item.text))
    ids = list(subject.renderer.example(before, text).ids)
    if subject.context_length is not None and len(ids) > subject.context_length:
        raise ValueError(f"the text has {len(ids)} tokens; this model's context has {subject.context_length}")
    return ids
