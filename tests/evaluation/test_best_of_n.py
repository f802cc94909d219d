"""Best-of-n against all subsets, and distinct n-grams by hand."""

import math
from itertools import combinations

from alignlab.evaluation.best_of_n import best_of_n
from alignlab.evaluation.diversity import distinct

import pytest
import torch


def test_means_over_all_subsets() -> None:
    score, judge = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    for found in best_of_n(score, judge, (1, 2, 4, 8)):
        picked = [[max(s, key=lambda i: score[p, i]) for s in combinations(range(5), found.n)] for p in range(3)]
        for values, mean in ((score, found.score), (judge, found.judge)):
            wanted = sum(float(values[p, i]) for p in range(3) for i in picked[p]) / sum(map(len, picked))
            assert mean == pytest.approx(wanted, abs=1e-6)
        assert found.kl == pytest.approx(math.log(found.n) - (found.n - 1) / found.n)
    assert [found.n for found in best_of_n(score, sizes=(1, 2, 4, 8))] == [1, 2, 4]


def test_distinct() -> None:
    assert distinct([[1, 2, 1, 2], [3]], 2) == pytest.approx(2 / 3)
    assert distinct([[1]], 2) == 0.0
