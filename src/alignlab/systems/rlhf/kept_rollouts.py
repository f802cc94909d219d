"""Rollouts on disk: what a run has learnt from, to be read, and to be learnt from again without a sampler or a reward.

A file for each update and rank: a line of what is said of all responses, then a line for each.
"""

import json
import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from alignlab.distributed.collectives import rank
from alignlab.files.writing import write_text
from alignlab.methods.rewards.scoring import Scores
from alignlab.methods.rlhf.rollout import Responses

FOLDER = "rollouts"
Rollout = tuple[Responses, Scores, dict[str, Tensor]]  # the last: what redrawing says


class KeptRollouts(pl.Callback):
    """Writes every rollout of PPO, GRPO and their like to `rollouts/` of the run directory, or learns from those of
    another run.

    A replay with the same settings ends in the same weights, bit for bit: tokens, the sampler's log-probabilities and
    scores are written exactly. Policy, reference and critic are asked as always, so that another loss, rate or number
    of epochs can be compared on the same responses. Validation samples as always.

    Ranks: each writes and reads its own rows; nothing is exchanged.

    Args:
        replay: run directory whose rollouts are learnt from.

    Raises:
        ValueError: there are none.
    """

    def __init__(self, replay: str | None = None) -> None:
        self.source = None if replay is None else Path(replay) / FOLDER
        if self.source is not None and not self.source.is_dir():
            raise ValueError(f"replay={replay} holds no rollouts/; a run keeps them with callbacks=[rlhf,rollouts]")
        self.folder: Path | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raises ValueError for a method that rolls nothing out."""
        if not pl_module.method.rolls_out:
            raise ValueError(f"rollouts: {type(pl_module.method).__name__} rolls nothing out; PPO, GRPO and theirs do")
        self.folder = Path(trainer.default_root_dir) / FOLDER
        pl_module.kept = self

    def write(self, number: int, rollout: Rollout) -> None:
        """Keeps the rollout of update `number`."""
        responses, scores, redrawn = rollout
        head = {"names": scores.names, "may_lack": scores.may_lack}
        head["redrawn"] = {name: float(value) for name, value in redrawn.items()}
        columns = (responses.prompts, responses.responses, responses.ended, responses.logprobs)
        judged = (_plain(scores.parts), _plain(scores.total), _plain(scores.learned))
        keys = ("prompt", "response", "ended", "logprobs", "parts", "score", "learned")
        rows = (dict(zip(keys, row, strict=True)) for row in zip(*columns, *judged, strict=True))
        write_text(self.folder / _name(number), "".join(json.dumps(row) + "\n" for row in (head, *rows)))

    def read(self, number: int, device: torch.device, prompts: list[list[int]] | None) -> Rollout:
        """The rollout of update `number`, whose prompts must be these, if prompts are never redrawn.

        Raises:
            ValueError: it isn't there, can't be read, or answers other prompts.
        """
        file = self.source / _name(number)
        if not file.is_file():
            there = len(list(self.source.glob(_name(0).replace("00000000", "*"))))
            raise ValueError(f"replay: {file} isn't there; {there} updates of rank {rank()} are")
        try:
            head, *rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
            if not rows:
                raise ValueError("no responses")
            columns = [[row[key] for row in rows] for key in ("prompt", "response", "ended", "logprobs")]
            judged = [_tensor([row[key] for row in rows], device) for key in ("parts", "score", "learned")]
            redrawn = {name: torch.tensor(value, device=device) for name, value in head["redrawn"].items()}
            scores = Scores(tuple(head["names"]), *judged, head["may_lack"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"replay: {file} is damaged ({error})") from error
        if prompts is not None and columns[0] != prompts:
            raise ValueError(
                f"replay: {file} answers other prompts than this run's; data, seed and batch must be the same"
            )
        return Responses(*columns), scores, redrawn


def _name(number: int) -> str:
    return f"{number:08d}-{rank()}.jsonl"


def _plain(values: Tensor) -> list[Any]:
    """Numbers as JSON has them: None for NaN."""
    if values.dim() > 1:
        return [_plain(row) for row in values]
    return [None if math.isnan(value) else value for value in values.tolist()]


def _tensor(values: list[Any], device: torch.device) -> Tensor:
    """The way back, float32."""
    rows = [[math.nan if v is None else v for v in (row if isinstance(row, list) else [row])] for row in values]
    table = torch.tensor(rows, dtype=torch.float32, device=device)
    return table if values and isinstance(values[0], list) else table[:, 0]
