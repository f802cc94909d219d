"""How rewards become the one score that a response learns from.

Legend: B responses of this process, G of each prompt, R parts: all that the rewards call by a name.
"""

import logging
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from alignlab.distributed.collectives import reduce_sum
from alignlab.methods.rewards.function import FunctionReward
from alignlab.methods.rewards.returned import Parts
from alignlab.methods.rlhf.reward_text import Scored

log = logging.getLogger(__name__)


class Scores(NamedTuple):
    """Scores of a batch, on one device."""

    names: tuple[str, ...]  # R, then what is logged only
    parts: Tensor  # (B, R and what is logged only) float32, NaN where a response has none
    total: Tensor  # (B,) weighted sum of the parts that there are; NaN: the response is left out
    learned: Tensor  # (B,) the same, of parts that were normalised where that is asked for
    may_lack: bool = False  # whether responses may be left out

    def metrics(self) -> dict[str, Tensor]:
        """Means over all ranks: of the score, of each part where there are several, and the share of responses that
        were left out, where there are any.
        """
        table = torch.cat([self.total[:, None], self.parts], 1)
        there = table.isfinite()
        sums = reduce_sum(torch.stack([torch.where(there, table, 0.0).sum(0), there.float().sum(0)]))
        mean, count = sums[0] / sums[1].clamp_min(1.0), reduce_sum(torch.full_like(table[0, 0], float(len(table))))
        metrics = {"objective/score": mean[0]}
        if self.may_lack:
            metrics["objective/left_out"] = 1 - sums[1, 0] / count
        if len(self.names) > 1:
            metrics |= {f"reward/{name}": value for name, value in zip(self.names, mean[1:], strict=True)}
        return metrics


class Rewards:
    """Several rewards with names: a reward as any other, whose score is the sum of theirs."""

    def __init__(self, named: Mapping[str, Any]) -> None:
        self.named = dict(named)

    def bind(self, net: Any, tokenizer: Any) -> None:
        """Binds each."""
        for reward in self.named.values():
            reward.bind(net, tokenizer)

    def read_as_trained(self, renderer: Any, stop_ids: Any) -> None:
        """As each that reads ids has it."""
        for reward in self.named.values():
            if hasattr(reward, "read_as_trained"):
                reward.read_as_trained(renderer, stop_ids)

    def __call__(self, batch: Scored) -> Tensor:
        """Scores (B,)."""
        return Scoring()(self, batch).total


class Scoring:
    """Weighs rewards, and says what becomes of responses that one of them can't score.

    Args:
        weights: of rewards, and of parts that a function names, by name; 1 where none is given.
        normalised: each part becomes (r - mean) / (deviation + 1e-4) within its prompt's responses before they are
            summed (GDPO, arXiv:2601.05242; over the batch where a prompt has one response), so that a rare and a
            frequent reward count alike. Take `scale=batch` with it, which is GDPO's last step.
        time_limit: seconds of a call of a function; None: none.
        on_error: stop: a response without a finite score ends the run in one line. leave_out: it is left out of the
            update, and counted (`objective/left_out`).

    Raises:
        ValueError: a limit that isn't positive.
    """

    def __init__(
        self,
        *,
        weights: Mapping[str, float] | None = None,
        normalised: bool = False,
        time_limit: float | None = None,
        on_error: Literal["stop", "leave_out"] = "stop",
    ) -> None:
        if time_limit is not None and time_limit <= 0:
            raise ValueError(f"time_limit={time_limit} must be positive")
        self.weights, self.normalised = dict(weights or {}), normalised
        self.time_limit, self.leave_out = time_limit, on_error == "leave_out"
        self._said = False

    def __call__(self, reward: Any, batch: Scored, group: int = 1) -> Scores:
        """Scores of a batch; responses of a prompt stand side by side.

        Raises:
            ValueError: a function's mistakes (`FunctionReward.parts`), a weight of what has no such name, or no
                response at all has a score.
        """
        named = reward.named if isinstance(reward, Rewards) else {"": reward}
        columns: dict[str, Tensor] = {}
        logged: dict[str, Tensor] = {}
        for name, one in named.items():
            if not isinstance(one, FunctionReward):
                columns[name] = one(batch).float()
                continue
            parts = one.parts(batch, limit=self.time_limit, leave_out=self.leave_out)
            self._complain(one, parts)
            for values, into in ((parts.values, columns), (parts.logged, logged)):
                into |= {_joined(name, part): torch.tensor(v, dtype=torch.float32) for part, v in values.items()}
        if unknown := [name for name in self.weights if name not in columns]:
            raise ValueError(
                f"scoring.weights: nothing is called {unknown[0]} (there are {', '.join(columns) or 'none'})"
            )
        device = next((c.device for c in columns.values() if c.device.type != "cpu"), torch.device("cpu"))
        table = torch.stack([c.to(device, non_blocking=True) for c in columns.values()], 1)
        weight = torch.tensor([float(self.weights.get(name, 1.0)) for name in columns]).to(device, non_blocking=True)
        total = _summed(table, weight)
        learned = _summed(_normalised(table, group), weight) if self.normalised else total
        extra = [c.to(device, non_blocking=True) for c in logged.values()]
        names = tuple(name or "score" for name in (*columns, *logged))
        return Scores(names, torch.cat([table, *(c[:, None] for c in extra)], 1), total, learned, self.leave_out)

    def _complain(self, reward: FunctionReward, parts: Parts) -> None:
        reasons = [reason for reason in parts.wrong if reason is not None]
        if reasons and len(reasons) == len(parts.wrong):
            raise ValueError(f"{reward.key}={reward.name} {reasons[0]} for response 0, and scores no response at all")
        if reasons and not self._said:
            self._said = True
            first = next(i for i, reason in enumerate(parts.wrong) if reason is not None)
            log.warning("%s=%s %s for response %d: left out", reward.key, reward.name, reasons[0], first)


def filled_up(score: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """Scores with the mean of the prompt's others, or where there are none of all, in place of NaN; and which were
    there, (B,) bool. Of equal ones the mean is exactly theirs.
    """
    rows = score.view(-1, group)
    kept = rows.isfinite()
    least = torch.where(kept, rows, torch.inf).amin(1, keepdim=True)
    shifted = torch.where(kept, rows - least, 0.0).sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp_min(1)
    overall = torch.where(kept, rows, 0.0).sum() / kept.sum().clamp_min(1)
    mean = torch.where(least.isfinite(), least + shifted, overall)
    return torch.where(kept, rows, mean).flatten(), kept.flatten()


def _summed(table: Tensor, weight: Tensor) -> Tensor:
    """Weighted sum of the parts that there are, NaN where there is none: (B, R), (R,) -> (B,)."""
    there = table.isfinite()
    total = (torch.where(there, table, 0.0) * weight).sum(1)
    return torch.where(there.any(1), total, torch.nan)


def _normalised(table: Tensor, group: int) -> Tensor:
    # huggingface/trl v1.12.0 trl/trainer/grpo_trainer.py:2812-2818, the 1e-4 included. Equal values are exactly 0.
    rows = table.view(-1, group if group > 1 else len(table), table.shape[1])
    there = rows.isfinite()
    first = torch.where(there, rows, torch.inf).amin(1, keepdim=True)
    shifted = torch.where(there, rows - torch.where(first.isfinite(), first, 0.0), 0.0)
    count = there.sum(1, keepdim=True)
    centred = torch.where(there, shifted - shifted.sum(1, keepdim=True) / count.clamp_min(1), 0.0)
    deviation = (centred.square().sum(1, keepdim=True) / (count - 1).clamp_min(1)).sqrt()
    return torch.where(there, centred / (deviation + 1e-4), torch.nan).view_as(table)


def _joined(name: str, part: str) -> str:
    return part or name if not (name and part) else f"{name}/{part}"
