"""Scores brought to a common scale before the policy sees them."""

from typing import Literal

import torch
from torch import Tensor

from alignlab.distributed.collectives import reduce_sum


class ScoreScale:
    """Divides scores by their deviation so far ("running", over all ranks), then clamps them to +-clip.

    The mean stays: it is the critic's business, and the sign of a score has a meaning. Deviation: Chan's parallel
    update of count, mean and sum of squares (doi:10.1080/00031305.1983.10483115), before the scores at hand are
    divided.
    """

    def __init__(self, scale: Literal["none", "running"] = "none", clip: float | None = None) -> None:
        if scale not in ("none", "running"):
            raise ValueError(f"score_scale={scale} is none of none, running")
        if clip is not None and clip <= 0:
            raise ValueError(f"score_clip={clip} must be positive")
        self.scale, self.clip = scale, clip
        self.moments = torch.zeros(3, dtype=torch.float64)  # count, mean, sum of squares; where the scores are

    def __call__(self, score: Tensor) -> Tensor:
        """(B,) -> (B,), without waiting for a device."""
        if self.scale == "running":
            count, mean, squares = self._see(score)
            deviation = (squares / (count - 1).clamp_min(1)).sqrt()
            # Equal scores have no deviation, or one of rounding: they stay what they are.
            told_apart = (count > 1) & (deviation > 1e-6 * mean.abs())
            score = (score / torch.where(told_apart, deviation, 1.0)).to(score.dtype)
        return score if self.clip is None else score.clamp(-self.clip, self.clip)

    def _see(self, score: Tensor) -> Tensor:
        self.moments = self.moments.to(score.device, non_blocking=True)
        before, mean_before, squares_before = self.moments
        score = score.double()
        count, total = reduce_sum(torch.stack([torch.full_like(score[0], len(score)), score.sum()]))
        mean = total / count
        squares = reduce_sum((score - mean).square().sum())
        delta, both = mean - mean_before, before + count
        squares = squares_before + squares + delta.square() * before * count / both
        self.moments = torch.stack([both, mean_before + delta * count / both, squares])
        return self.moments

    def state_dict(self) -> dict[str, float]:
        """Count, mean and sum of squares."""
        return dict(zip(("count", "mean", "squares"), self.moments.tolist(), strict=True))

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from saved moments."""
        self.moments = torch.tensor([state[name] for name in ("count", "mean", "squares")], dtype=torch.float64)
