"""PPO and GRPO under every strategy: two processes against one with the joint batch, resumed bit for bit, and from each other's checkpoints.

Responses of unequal lengths, so that ranks have unequal numbers of tokens; micro-batches that don't divide the rows; clipped gradients; for PPO without
adapters a trunk of the critic's own, a frozen reference, and updates that end early (`target_kl`), whose last gradient must be forgotten.
"""

import csv
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import on_policy_ranks as ranks
import strategy_ranks
from two_processes import start

import pytest
import torch
from torch.utils._pytree import tree_leaves

SCRIPT = Path(ranks.__file__)
DEEPSPEED = pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs the extra deepspeed")
STRATEGIES = ("ddp", "fsdp", "deepspeed_1", "deepspeed_2", "deepspeed_3")
LOSSES = (
    "ppo/policy_loss",
    "ppo/value_loss",
    "ppo/grad_norm",
    "ppo/minibatches",
    "objective/score",
    "objective/entropy",
)


def last(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def rows(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: float(row[name]) for name in LOSSES if row.get(name)} for row in csv.DictReader(file)]


def near(folder: Path, wanted: Path, what: str) -> None:
    """Weights to 1e-5 of a tensor's largest number."""
    found, expected = last(folder)["state_dict"], last(wanted)["state_dict"]
    assert found.keys() == expected.keys(), what
    for name, value in expected.items():
        bound = 1e-5 * value.abs().max().item()
        torch.testing.assert_close(found[name], value, rtol=0, atol=bound, msg=lambda m, n=name: f"{what}: {n}: {m}")


def check(folder: Path, models: Sequence[str], strategies: Sequence[str], *, updates: int, each_other: bool) -> None:
    """What the module says, for models and strategies."""
    strategy_ranks.quiet()
    for model in models:
        ranks.fit(folder / model / "one", model, "trainer=cpu", steps=updates)
    after = [*strategies[1:], strategies[0]] if each_other else []
    pairs = [f"{a}+{b}" for a, b in zip(strategies, after, strict=False)]
    start(SCRIPT, folder, [f"{m}:{s}" for m in models for s in (*strategies, *pairs)], [str(updates)], seconds=3600)
    for model in models:
        place = folder / model
        said = torch.load(place / "one" / "said0.pt")
        assert len({len(response) for update in said for response in update}) > 2, "of unequal lengths"
        for name in strategies:
            both = [torch.load(place / name / f"said{rank}.pt") for rank in (0, 1)]
            assert [a + b for a, b in zip(*both, strict=True)] == said, f"{model} {name} rolls out something else"
            for row, wanted in zip(rows(place / name), rows(place / "one"), strict=True):
                assert row == pytest.approx(wanted, rel=1e-5, abs=1e-6), (model, name)
            near(place / name, place / "one", f"{model} {name}")
            assert_same(last(place / f"{name}_resumed"), last(place / name), f"{model} {name} resumed")
        for name in pairs:
            near(place / name, place / "one", f"{model} {name}")
    if each_other:
        half = folder / models[0] / f"{strategies[-1]}_half" / "checkpoints" / "last.ckpt"
        ranks.fit(folder / "alone", models[0], "trainer=cpu", steps=updates, ckpt_path=half)
        near(folder / "alone", folder / models[0] / "one", f"one process going on from {strategies[-1]}")


def assert_same(found: dict, wanted: dict, what: str) -> None:
    """Weights, optimizer states and what the method remembers, bit for bit."""
    for part in ("state_dict", "optimizer_states", "rlhf"):
        pairs = zip(tree_leaves(found.get(part)), tree_leaves(wanted.get(part)), strict=True)
        assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs), f"{what}: {part}"


@pytest.fixture(autouse=True)
def fewer_reviews(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks.movies, "rated_reviews", ranks.movies.rated_reviews)  # put back after few_reviews
    ranks.few_reviews()


@pytest.mark.parametrize(
    ("model", "strategy"),
    [
        pytest.param("grpo", "fsdp", marks=pytest.mark.distributed),
        pytest.param("ppo_lora", "deepspeed_2", marks=[pytest.mark.deepspeed, DEEPSPEED]),
    ],
)
def test_a_resumed_run_equals_one_process(model: str, strategy: str, tmp_path: Path) -> None:
    """Three updates: one, and two from its checkpoint."""
    strategy_ranks.quiet()
    place = tmp_path / model
    ranks.fit(place / "one", model, "trainer=cpu", steps=3)
    start(SCRIPT, tmp_path, [f"{model}:{strategy}!"], ["3"])
    parts = [place / f"{strategy}_half", place / f"{strategy}_resumed"]
    said = [torch.load(part / f"said{rank}.pt") for rank in (0, 1) for part in parts]
    both = zip(said[0] + said[1], said[2] + said[3], strict=True)
    assert [a + b for a, b in both] == torch.load(place / "one" / "said0.pt")
    for row, wanted in zip([*rows(parts[0]), *rows(parts[1])], rows(place / "one"), strict=True):
        assert row == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    near(parts[1], place / "one", f"{model} {strategy}")


@DEEPSPEED
@pytest.mark.slow
@pytest.mark.deepspeed
@pytest.mark.parametrize("model", ranks.MODELS)
def test_every_strategy_equals_one_process(tmp_path: Path, model: str) -> None:
    check(tmp_path, [model], STRATEGIES, updates=5, each_other=True)
