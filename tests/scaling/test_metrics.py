"""Each metric by hand; edit distance against a plain recursion."""

import math
from functools import cache

from alignlab.scaling.metrics import METRICS, edit_distance, part, tokens

import numpy as np
import pytest


def value(name: str, **item: object) -> float | None:
    return METRICS[name].of(item)


def test_texts_by_hand() -> None:
    item = {"target": "12345", "prediction": "12395"}
    assert value("exact_match", **item) == 0 and value("edit_distance", **item) == 1
    assert value("token_accuracy", **item) == pytest.approx(0.8)
    assert value("token_accuracy", target="12345", prediction="12") == pytest.approx(0.4)
    words = {"target": "a red cat", "prediction": "a cat"}
    assert value("edit_distance", **words) == 1 and value("token_accuracy", **words) == pytest.approx(1 / 3)
    assert value("exact_match", correct=True, target="4", prediction=" 4.0") == 1  # the task's own rule counts
    assert tokens([3, 1]) == [3, 1] and tokens("  ab ") == ["a", "b"] and tokens("猫 狗") == ["猫", "狗"]


def test_logprobs_by_hand() -> None:
    item = {"target_logprobs": [math.log(0.5), math.log(0.25)]}
    assert value("token_logprob", **item) == pytest.approx(math.log(0.125) / 2)
    assert value("sequence_probability", **item) == pytest.approx(0.125)


def test_options_by_hand() -> None:
    logprobs = [math.log(p) - 3 for p in (0.2, 0.5, 0.3)]  # whatever they add up to
    item = {"option_logprobs": logprobs, "answer": 2}
    assert value("multiple_choice", **item) == 0 and value("option_probability", **item) == pytest.approx(0.3)
    assert value("brier", **item) == pytest.approx(0.04 + 0.25 + 0.49)
    assert value("multiple_choice", option_logprobs=[0.0, 0.0], answer=1) == 0.5  # by lot
    assert value("brier", option_logprobs=[0.0, 0.0], answer=2) is None


def test_ranks_by_hand() -> None:
    assert value("rank_1", rank=1) == 1 and value("rank_1", rank=2) == 0
    assert value("reciprocal_rank", rank=4) == 0.25 and value("log_rank", rank=8) == 3
    assert value("mean_rank", rank=8) == 8 and METRICS["median_rank"].centre == "median"
    assert value("mean_rank", rank=0) is None and value("mean_rank", rank=True) is None


def test_what_an_item_lacks_gives_nothing() -> None:
    assert all(metric.of({"id": "1"}) is None for metric in METRICS.values())
    assert part("carry").of({"parts": {"carry": True}}) == 1 and part("carry").of({"parts": {}}) is None


def test_edit_distance_is_the_least() -> None:
    @cache
    def slow(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(slow(a[1:], b) + 1, slow(a, b[1:]) + 1, slow(a[1:], b[1:]) + (a[0] != b[0]))

    random = np.random.default_rng(0)
    for _ in range(200):
        a, b = ("".join(random.choice(list("abc"), random.integers(0, 7))) for _ in range(2))
        assert edit_distance(a, b) == slow(a, b)


def test_hits_are_the_metrics_that_jump() -> None:
    assert {m.name for m in METRICS.values() if m.hits} == {"exact_match", "multiple_choice", "rank_1"}
    assert {m.name for m in METRICS.values() if not m.continuous and not m.hits} == {"sequence_probability"}
    assert not any(m.hits and m.continuous for m in METRICS.values())
