"""Best-of-n sampling: the yardstick of every method that buys reward with KL.

Legend: P prompts, N samples of each.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class BestOf(NamedTuple):
    """What picking the best of n samples by the reward gives, on average over prompts and choices of n among N."""

    n: int
    kl: float  # nats, log n - (n - 1) / n
    score: float  # of the reward that picks
    judge: float | None  # of the judge


def best_of_n(score: Tensor, judge: Tensor | None = None, sizes: tuple[int, ...] = (1, 2, 4, 8, 16)) -> list[BestOf]:
    """Exact means over all subsets of n of the N samples, for each n that N allows.

    The i-th smallest of N is the largest of a random subset of n with probability C(i - 1, n - 1) / C(N, n)
    (arXiv:2009.01325, app. G.3, has the KL). score, judge (P, N).
    """
    total = score.shape[1]
    order = score.argsort(1)
    ranked = score.gather(1, order).double()
    judged = None if judge is None else judge.gather(1, order).double()
    points = []
    for n in sizes:
        if n > total:
            break
        chance = torch.tensor([math.comb(i, n - 1) / math.comb(total, n) for i in range(total)], dtype=torch.float64)
        means = [None if x is None else float((x * chance.to(x.device)).sum(1).mean()) for x in (ranked, judged)]
        points.append(BestOf(n, math.log(n) - (n - 1) / n, *means))
    return points
