"""Scores brought to a common scale before the policy sees them."""

from typing import Literal

import torch
from torch import Tensor

from alignlab.distributed import reduce_sum


class ScoreScale:
    """Divides scores by their deviation so far ("running", over all ranks), then clamps them to +-clip.

    The mean stays: it is the critic's business, and the sign of a score has a meaning. Deviation: Chan's parallel update of count, mean and
    sum of squares (doi:10.1080/00031305.1983.10483115), before the scores at hand are divided.
    """

    def __init__(self, scale: Literal["none", "running"] = "none", clip: float | None = None) -> None:
        if scale not in ("none", "running"):
            raise ValueError(f"model.score_scale={scale} is none of none, running")
        if clip is not None and clip <= 0:
            raise ValueError(f"model.score_clip={clip} must be positive")
        self.scale, self.clip = scale, clip
        self.count, self.mean, self.squares = 0.0, 0.0, 0.0

    def __call__(self, score: Tensor) -> Tensor:
        """(B,) -> (B,)."""
        if self.scale == "running":
            self._see(score)
            score = score / max((self.squares / max(self.count - 1, 1)) ** 0.5, 1e-8) if self.count > 1 else score
        return score if self.clip is None else score.clamp(-self.clip, self.clip)

    def _see(self, score: Tensor) -> None:
        score = score.double()
        count, total = reduce_sum(torch.stack([torch.tensor(float(len(score))).to(score), score.sum()])).tolist()
        mean = total / count
        squares = reduce_sum((score - mean).square().sum()).item()
        delta, both = mean - self.mean, self.count + count
        self.squares += squares + delta**2 * self.count * count / both
        self.mean += delta * count / both
        self.count = both

    def state_dict(self) -> dict[str, float]:
        """Count, mean and sum of squares."""
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from saved moments."""
        self.count, self.mean, self.squares = state["count"], state["mean"], state["squares"]
