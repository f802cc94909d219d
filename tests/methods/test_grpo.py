"""GRPO and its relatives as a whole: they learn, and what must change nothing changes nothing."""

from functools import partial
from pathlib import Path

from alignlab.inference.backends.int8 import Int8Backend
from alignlab.methods.grpo import GrpoMethod
from alignlab.methods.rewards.scoring import Scoring
from alignlab.methods.rlhf.objective import Objective, Statistics
from alignlab.methods.rlhf.update import Update
from alignlab.models.language.loading import pretrained
from alignlab.models.language.lora import add_lora
from alignlab.systems.choosing import system_of
from alignlab.systems.rlhf.on_policy import OnPolicySystem
from alignlab.types.language import PromptBatch
from recorder import Recorder
from tiny_policy import VOCABULARY, WORDS, Prompts, constant_rate, count_good, save_model, sgd, trainer

import pytest
import torch
from torch.testing import assert_close


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_model(tmp_path_factory.mktemp("policy"))


def system(path: str, lr: float = 1e-2, **settings) -> OnPolicySystem:
    settings = {"response_length": 8, "group_size": 4} | settings
    reward = settings.pop("reward", count_good)
    method = partial(GrpoMethod, partial(pretrained, path=path), reward, **settings)
    return system_of(method, vocabulary=VOCABULARY, optim=constant_rate(lr))


def fit(found: OnPolicySystem, folder: Path, steps: int, batch_size: int = 4) -> list[dict[str, float]]:
    recorder = Recorder()
    trainer(folder, steps, callbacks=[recorder]).fit(found, datamodule=Prompts(batch_size))
    return recorder.rows


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": Objective(kl_coefficient=0.02)},
        {"kind": "rloo", "kl_in_reward": 0.01, "objective": Objective(importance="sequence_sum")},
        {"kind": "reinforce++", "kl_in_reward": 0.01, "group_baseline": True},
        {
            "objective": Objective(clip_high=0.28, aggregation="constant"),
            "scale": "none",
            "skip_equal": True,
            "overlong_margin": 2,
            "steps": 30,
        },
    ],
    ids=["grpo", "rloo", "reinforce++", "dr_grpo, dapo"],
)
def test_they_learn(path: str, tmp_path: Path, settings: dict) -> None:
    steps = settings.get("steps", 14)
    settings = {key: value for key, value in settings.items() if key != "steps"}
    rows = fit(system(path, update=Update(epochs=2), **settings), tmp_path, steps)
    scores = [row["objective/score"] for row in rows]
    assert sum(scores[-3:]) / 3 > sum(scores[:3]) / 3 + 0.1, scores
    assert rows[0]["objective/kl"] == pytest.approx(0.0, abs=1e-5)
    assert rows[0]["ppo/first_ratio_error"] < 1e-4


@pytest.mark.parametrize("importance", ["token", "sequence_mean", "sequence_sum"])
@pytest.mark.parametrize("aggregation", ["token", "sequence", "constant"])
def test_the_gradient_does_not_depend_on_micro_batches(
    path: str, tmp_path: Path, importance: str, aggregation: str
) -> None:
    weights = []
    for size in (3, 16):
        objective = Objective(importance=importance, aggregation=aggregation, kl_coefficient=0.1)
        found = system(path, update=Update(epochs=2, micro_batch_size=size), objective=objective)
        found.optim = lambda module, total_steps: sgd(module)
        fit(found, tmp_path, 1)
        weights.append({name: p.detach() for name, p in found.named_parameters()})
    for name, value in weights[0].items():
        assert_close(weights[1][name], value, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_equal_groups_teach_nothing(path: str, tmp_path: Path) -> None:
    found = system(path, reward=lambda prompts, responses: [1.0] * len(responses), skip_equal=True)
    found.configure_model()
    before = {name: p.detach().clone() for name, p in found.named_parameters()}
    rows = fit(found, tmp_path, 1)
    assert rows[0]["objective/equal_groups"] == 1.0
    assert all(torch.equal(p, before[name]) for name, p in found.named_parameters())


class RowPrompts(Prompts):
    """Prompts whose rows have a column."""

    def batch(self, number: int, ranks: int = 1, rank: int = 0) -> PromptBatch:
        batch = super().batch(number, ranks, rank)
        return batch._replace(rows=[{"word": WORDS[3 + i % 5]} for i in batch.index.tolist()])


@pytest.mark.parametrize("kind", ["grpo", "rloo", "reinforce++"])
def test_rewards_see_rows_and_what_they_cannot_score_teaches_nothing(path: str, tmp_path: Path, kind: str) -> None:
    """A response that is left out changes no weight, whatever it says."""
    seen = []

    def holds(prompts: list[str], responses: list[str], word: list[str]) -> list[float | None]:
        seen.append(word)
        return [
            None if i == 5 else float(w in r) - 0.01 * len(r)
            for i, (w, r) in enumerate(zip(word, responses, strict=True))
        ]

    reward = {"holds": holds, "good": lambda p, r: [None if i == 5 else x for i, x in enumerate(count_good(p, r))]}
    scoring = Scoring(weights={"good": 0.5}, on_error="leave_out")
    found = system(path, reward=reward, scoring=scoring, kind=kind, objective=Objective(kl_coefficient=0.1))
    recorder = Recorder()
    trainer(tmp_path, 1, callbacks=[recorder]).fit(found, datamodule=RowPrompts(4))
    row = recorder.rows[0]
    assert row["objective/left_out"] == 1 / 16
    assert row["objective/score"] == pytest.approx(row["reward/holds"] + 0.5 * row["reward/good"], rel=1e-5)
    assert seen[0] == [WORDS[3 + i % 5] for i in range(4) for _ in range(4)]  # each prompt's four times
    responses, t = found.method.roll_out(RowPrompts(4).batch(0), 0)
    score = found.method.scores(found.method.reward, responses).learned
    e, _ = found.method.experience(t, score)
    assert e.weight.tolist() == [1.0] * 5 + [0.0] + [1.0] * 10 and not e.advantage[5].any()


def test_an_int8_sampler_is_corrected_for(path: str, tmp_path: Path) -> None:
    """Rollouts from the base in 8 bits and the live adapter: refused as another model, or weighed token by token."""

    def rolled_out(steps: int = 1, whole: bool = False, **settings) -> tuple[OnPolicySystem, list[dict]]:
        peft = None if whole else partial(add_lora, rank=2)
        found = system(path, backend=Int8Backend(), peft=peft, **settings)
        return found, fit(found, tmp_path, steps)

    with pytest.raises(RuntimeError, match=r"Int8Backend samples from another model .*objective.sampler_ratio_max=2"):
        rolled_out()
    with pytest.raises(ValueError, match="this one changes, use backend=compiled"):
        rolled_out(whole=True)
    found, rows = rolled_out(3, objective=Objective(sampler_ratio_max=1.002))
    assert 1e-3 < rows[0]["ppo/sampler_error"] < 0.2
    responses, t = found.method.roll_out(Prompts(4).batch(0), 9)
    e, _ = found.method.experience(t, found.method.scores(found.method.reward, responses).learned)
    part = next(found.method.minibatches(t, e, 9))[0]
    losses = {}
    for most in (None, 1.002, 1e9):
        losses[most] = Objective(sampler_ratio_max=most)(found.net, part, statistics := Statistics()).item()
    ratio = (part.logprob - part.sampled).exp()
    new = found.method._assessed(found.net, responses).logprob.flatten()[part.at.token]
    assert_close(new, part.logprob, rtol=0, atol=1e-4)
    weighed = -(part.advantage * ratio.clamp(max=1.002)).sum() / part.totals.tokens
    assert losses[1.002] == pytest.approx(weighed.item(), abs=1e-5)
    assert statistics.sums["sampler_ratio"] == pytest.approx(ratio.mean().item(), rel=1e-5)
    assert losses[1.002] != losses[1e9] != losses[None]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group_size": 1}, "group_size=1: kind=grpo compares at least 2"),
        ({"kind": "ppo"}, "kind=ppo is none of"),
        ({"overlong_margin": 9}, r"overlong_margin=9 must lie in 0..8"),
    ],
)
def test_bad_settings(path: str, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        system(path, **settings).configure_model()
