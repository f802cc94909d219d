"""Reward functions: the rows' columns, the ways of other libraries, named parts, time limits, and mistakes in one line."""

import asyncio
import pickle
import time
from typing import NamedTuple

from alignlab.methods.rewards.function import FunctionReward
from alignlab.methods.rewards.scoring import Rewards, Scoring, filled_up
from alignlab.methods.rlhf.reward import as_reward
from alignlab.methods.rlhf.reward_text import Scored

import numpy as np
import pytest
import torch
from torch.testing import assert_close

CHATS = [[{"role": "user", "content": f"{n}?"}] for n in range(3)]
ROWS = [{"answer": str(n)} for n in (2, 3, 4)]
BATCH = Scored(["1+1=", "1+2=", "1+3="], ["2", "3", "5"], [[1], [2], [3]], [True] * 3, None, ROWS)


def right(prompts, responses, answer):
    return [float(r == a) for r, a in zip(responses, answer, strict=True)]


def anything(texts, replies, **columns):
    return [float(columns["answer"][i] == reply) for i, reply in enumerate(replies)]


def of_trl(prompts, completions, completion_ids=None, answer=None, **kwargs):
    texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
    return [None if a is None else float(t == a) for t, a in zip(texts, answer, strict=True)]


def compute_score(data_source, solution_str, ground_truth, extra_info=None):  # verl
    return {"score": float(solution_str == ground_truth), "length": len(solution_str)}


def reward_func(queries, prompts, labels, **kwargs):  # OpenRLHF
    hits = torch.tensor([float(q == p + label) for q, p, label in zip(queries, prompts, labels, strict=True)])
    return {"rewards": hits, "scores": hits, "extra_logs": {"seen": torch.ones(len(hits))}}


async def slowly(prompts, responses, answer):
    await asyncio.sleep(0.01)
    return right(prompts, responses, answer)


async def compute_score_slowly(solution_str, ground_truth):
    await asyncio.sleep(5.0 if solution_str == "3" else 0.01)
    return float(solution_str == ground_truth)


class Part(NamedTuple):
    right: float
    short: float


@pytest.mark.parametrize("function", [right, anything, of_trl, compute_score, reward_func, slowly])
def test_one_function_for_every_library(function) -> None:
    reward = as_reward(function)
    assert reward(BATCH).tolist() == [1.0, 1.0, 0.0]
    assert pickle.loads(pickle.dumps(reward)).way == reward.way


def test_functions_without_columns_and_chats() -> None:
    assert FunctionReward(lambda p, r: [len(x) for x in r])(BATCH).tolist() == [1.0, 1.0, 1.0]
    assert FunctionReward(lambda p, r: np.arange(3))(BATCH._replace(rows=None)).tolist() == [0.0, 1.0, 2.0]
    assert FunctionReward(of_trl)(BATCH._replace(contents=CHATS)).tolist() == [1.0, 1.0, 0.0]
    with pytest.raises(ValueError, match=r"reward=right asks for the column answer; the data have question$"):
        FunctionReward(right)(BATCH._replace(rows=[{"question": 1}] * 3))


@pytest.mark.parametrize(
    "returned",
    [
        [{"right": 1.0, "short": 2.0}, {"short": 1.0, "right": 0.0}, {"right": True, "short": 0}],
        {"right": [1, 0, 1], "short": torch.tensor([2, 1, 0])},
        [Part(1, 2), Part(0, 1), Part(1, 0)],
    ],
)
def test_named_parts(returned) -> None:
    scores = Scoring(weights={"short": 0.5})(FunctionReward(lambda p, r: returned), BATCH)
    assert scores.names == ("right", "short") and scores.parts.tolist() == [[1, 2], [0, 1], [1, 0]]
    assert scores.total.tolist() == [2.0, 0.5, 1.0]
    metrics = {name: round(float(value), 4) for name, value in scores.metrics().items()}
    assert metrics == {"objective/score": 1.1667, "reward/right": 0.6667, "reward/short": 1.0}


def test_what_stands_beside_a_score_is_only_logged() -> None:
    scores = Scoring()(as_reward({"verl": compute_score, "rlhf": reward_func, "len": lambda p, r: [0.5] * 3}), BATCH)
    assert scores.names == ("verl", "rlhf", "len", "verl/length", "rlhf/seen")
    assert scores.total.tolist() == [2.5, 2.5, 0.5]


def test_each_reward_normalised_apart_is_gdpo() -> None:
    nanstd = pytest.importorskip("trl.trainer.utils").nanstd
    table = torch.tensor([[1.0, 30.0], [0.0, 10.0], [1.0, torch.nan], [1.0, 10.0], [0.1, 5.0], [0.1, 7.0]])
    weights, group = torch.tensor([1.0, 0.5]), 3
    columns = dict(zip("ab", table.T.tolist(), strict=True))
    named = {n: (lambda p, r, c=c: [None if x != x else x for x in c]) for n, c in columns.items()}
    batch = Scored(["p"] * 6, ["r"] * 6, [[1]] * 6, [True] * 6)
    scores = Scoring(weights={"b": 0.5}, normalised=True, on_error="leave_out")(as_reward(named), batch, group)
    grouped = table.view(-1, group, 2)  # huggingface/trl v1.12.0 trl/trainer/grpo_trainer.py:2813-2818
    mean, std = torch.nanmean(grouped, dim=1, keepdim=True), nanstd(grouped, dim=1, keepdim=True)
    wanted = (((grouped - mean) / (std + 1e-4)).view(-1, 2) * weights).nansum(1)
    assert_close(scores.learned, wanted, rtol=1e-5, atol=1e-5)
    assert_close(scores.total, (table * weights).nansum(1))
    equal = Scoring(normalised=True)(FunctionReward(lambda p, r: [1000.1] * 6), batch, group)
    assert equal.learned.tolist() == [0.0] * 6


def raising(prompts, responses):
    if "3" in responses:
        raise KeyError("no such thing")
    return [1.0] * len(responses)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda p, r: [1.0, None, 0.0], r"returned None for response 1 \('1\+2=' -> '3'\); scores must be finite"),
        (lambda p, r: [1.0, float("inf"), 0.0], r"returned inf for response 1"),
        (lambda p, r: ["0.5", 1, 2], r"returned str '0.5' for response 0"),
        (lambda p, r: "abc", r"returned str 'abc', not 3 numbers"),
        (lambda p, r: None, r"returned None, not 3 numbers"),
        (lambda p, r: 1.0, r"returned 1.0, not 3 numbers"),
        (lambda p, r: torch.ones(3, 1), r"returned shape \(3, 1\) for 3 responses; it must be \(3,\)"),
        (lambda p, r: [1.0, 2.0], r"returned 2 scores for 3 responses"),
        (
            lambda p, r: [{"a": 1.0}, {"b": 1.0}, {"a": 1.0}],
            r"returned the parts b for response 1 .*, and a for others",
        ),
        (lambda p, r: [{"a": 1.0}, {"a": "x"}, {"a": 1.0}], r"part a, returned str 'x' for response 1"),
        (raising, r"reward=raising raised KeyError: 'no such thing' for response 1 \('1\+2=' -> '3'\)"),
        (lambda p, r: time.sleep(9), r"took longer than time_limit=0.2 s"),
    ],
)
def test_a_mistake_is_one_line(function, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Scoring(time_limit=0.2)(FunctionReward(function), BATCH)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "function", [lambda p, r: [1.0, None, 0.0], lambda p, r: [1.0, "x", 0.0], raising, compute_score_slowly]
)
def test_a_response_without_a_score_is_left_out_if_asked(function, caplog) -> None:
    scores = Scoring(on_error="leave_out", time_limit=0.3)(FunctionReward(function), BATCH, 3)
    left_out = [i for i, x in enumerate(scores.total.tolist()) if x != x]
    assert left_out == [1] and "left out" in caplog.text
    assert float(scores.metrics()["objective/left_out"]) == pytest.approx(1 / 3)
    filled, kept = filled_up(scores.total, 3)
    assert kept.tolist() == [True, False, True] and filled[1] == (filled[0] + filled[2]) / 2
    with pytest.raises(ValueError, match="scores no response at all"):
        Scoring(on_error="leave_out")(FunctionReward(lambda p, r: [None] * 3), BATCH)


def test_several_with_names_and_weights() -> None:
    rewards = as_reward({"right": right, "length": lambda p, r: [len(x) for x in r]})
    assert isinstance(rewards, Rewards) and rewards(BATCH).tolist() == [2.0, 2.0, 1.0]
    assert Scoring(weights={"length": 0.0})(rewards, BATCH).total.tolist() == [1.0, 1.0, 0.0]
    with pytest.raises(ValueError, match=r"scoring.weights: nothing is called lenght \(there are right, length\)"):
        Scoring(weights={"lenght": 2.0})(rewards, BATCH)
    with pytest.raises(ValueError, match=r"reward.right=no.such can't be imported"):
        as_reward({"right": "no.such"})
