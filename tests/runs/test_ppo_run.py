"""PPO and GRPO from config to run directory: resumed equals uninterrupted bit for bit, what is exported loads, files for people are there."""

import csv
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from alignlab.data.language import movies
from alignlab.data.language.rated_reviews import RatedTexts, rated_reviews
from alignlab.models.language.loading import load_language_model
from alignlab.models.language.paths import load_tokenizer
from alignlab.runs import train as run
from alignlab.runs.building import load_system

import pytest
import torch
from omegaconf import DictConfig

pytest.importorskip("peft", reason="needs the extra rlhf")
Prepare = Callable[..., DictConfig]
SMALL = (
    "data.batch_size=4",
    "model.response_length=6",
    "model.reward=tiny_policy.count_letters",
    "optim.schedule=constant",
    "++trainer.limit_val_batches=1",
    "trainer.val_check_interval=2",
    "trainer.log_every_n_steps=1",
    "callbacks.progress=null",
    "callbacks.responses.num_prompts=2",
)


@pytest.fixture(autouse=True)
def fewer_reviews(monkeypatch: pytest.MonkeyPatch) -> None:
    few = RatedTexts(rated_reviews().texts[::50], rated_reviews().shares[::50])
    monkeypatch.setattr(movies, "rated_reviews", lambda name="movie_reviews": few)


@pytest.fixture
def base(prepared: Prepare, tmp_path: Path) -> Path:
    net = ("model.net.width=64", "model.net.depth=1", "model.net.heads=2", "+data.vocab_size=300")
    small = ("data.batch_size=4", "++trainer.limit_val_batches=1", "callbacks.progress=null", "trainer.max_steps=1")
    run.train(prepared(tmp_path / "sft", "model=sft", *net, *small))
    return tmp_path / "sft"


def checkpoint(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            {k: v for k, v in row.items() if "seconds" not in k and "second" not in k} for row in csv.DictReader(file)
        ]


def test_ppo_with_lora_resumed_bit_for_bit(prepared: Prepare, base: Path, tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    words = ("model=ppo", *SMALL, f"model.net.path={base}", "model.peft.rank=2", "model.kl.target=0.01")
    result = run.train(prepared(whole, *words, "trainer.max_steps=4"))
    assert result.status == "ok" and result.steps == 4
    run.train(prepared(halves, *words, "trainer.max_steps=2"))
    run.train(prepared(halves, f"resume={halves}", *words, "trainer.max_steps=4"))
    one, other = checkpoint(whole), checkpoint(halves)
    assert other["rlhf"] == one["rlhf"] and one["rlhf"]["kl"]["coefficient"] != 0.05
    assert one["state_dict"].keys() == other["state_dict"].keys()
    assert all("lora" in name or "value_head" in name for name in one["state_dict"]), (
        "frozen weights stay where they were"
    )
    for name, value in one["state_dict"].items():
        assert torch.equal(other["state_dict"][name], value), name
    kept = ("objective/score", "objective/kl", "ppo/policy_loss", "ppo/value_loss", "val/score")
    assert [[row[k] for k in kept] for row in rows(halves)] == [[row[k] for k in kept] for row in rows(whole)]

    ids = torch.tensor([load_tokenizer(str(whole)).encode("a good film")])
    adapted, merged = load_language_model(str(whole)), load_language_model(str(whole / "export" / "merged"))
    torch.testing.assert_close(adapted(ids).logits, merged(ids).logits, rtol=1e-4, atol=1e-4)
    pairs = [json.loads(line) for line in (whole / "samples" / "responses.jsonl").read_text().splitlines()]
    assert len(pairs) == 2 and (whole / "samples" / "reward_against_kl.png").exists()
    system, _ = load_system(whole, plugins=["tiny_policy.count_letters"])
    assert not system.net.training


def test_grpo_of_all_weights(prepared: Prepare, base: Path, tmp_path: Path) -> None:
    words = ("model=grpo", "model/peft=none", *SMALL, f"model.net.path={base}", "model.group_size=2", "seed=3")
    result = run.train(prepared(tmp_path / "run", *words, "trainer.max_steps=2", "objective=val/score"))
    assert result.objective == result.metrics["val/score"] and "ppo/value_loss" not in result.metrics
    assert (tmp_path / "run" / "export" / "model.safetensors").exists()


def test_a_reward_that_raises_is_one_line(prepared: Prepare, base: Path, tmp_path: Path) -> None:
    words = ("model=ppo", *SMALL, f"model.net.path={base}", "model.reward=json.loads", "trainer.max_steps=1")
    with pytest.raises(ValueError, match=r"model\.reward=json\.loads raised TypeError") as caught:
        run.train(prepared(tmp_path / "run", *words))
    assert "\n" not in str(caught.value)


BITSANDBYTES = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs the extra quantization")


@pytest.mark.parametrize("quantization", ["int8", pytest.param("nf4", marks=BITSANDBYTES)])
def test_ppo_on_a_quantised_base_that_was_an_adapter_itself(
    prepared: Prepare, base: Path, tmp_path: Path, quantization: str
) -> None:
    packed = (f"model.net.quantization={quantization}", "model.peft.rank=2")
    sft = ("model=sft", "model/net=language_pretrained", "model/peft=lora", f"model.net.path={base}", *packed)
    small = ("data.batch_size=4", "++trainer.limit_val_batches=1", "callbacks.progress=null", "trainer.max_steps=2")
    adapter = tmp_path / "adapter"
    run.train(prepared(adapter, *sft, *small, "optim.lr=0.01"))
    longer = prepared(adapter, f"resume={adapter}", *sft, *small, "optim.lr=0.01", "trainer.max_steps=3")
    assert run.train(longer).status == "ok"
    words = ("model=ppo", *SMALL, f"model.net.path={adapter}", *packed, "trainer.max_steps=2")
    result = run.train(prepared(tmp_path / "ppo", *words))
    assert result.status == "ok"
    errors = [float(row["ppo/first_ratio_error"]) for row in rows(tmp_path / "ppo") if row.get("ppo/first_ratio_error")]
    assert errors and max(errors) < 1e-4

    ids = torch.tensor([load_tokenizer(str(base)).encode("a good film")])
    adapted = load_language_model(str(tmp_path / "ppo"))
    merged = load_language_model(str(tmp_path / "ppo" / "export" / "merged"))
    assert all(parameter.is_floating_point() for parameter in merged.parameters())
    torch.testing.assert_close(adapted(ids).logits, merged(ids).logits, rtol=1e-4, atol=1e-4)
    system, _ = load_system(tmp_path / "ppo", plugins=["tiny_policy.count_letters"])
    with torch.no_grad():  # as trained: the same up to the rounding of the base
        rounding = 0.1 if quantization == "int8" else 1.0
        torch.testing.assert_close(system.net.model(ids).logits, merged(ids).logits, rtol=rounding, atol=rounding)
    assert (merged(ids).logits - load_language_model(str(base))(ids).logits).abs().max() > 0.01


@BITSANDBYTES
def test_a_base_whose_results_depend_on_the_batch_is_refused(prepared: Prepare, base: Path, tmp_path: Path) -> None:
    words = ("model=ppo", *SMALL, f"model.net.path={base}", "model.net.quantization=llm_int8", "model.peft.rank=2")
    with pytest.raises(ValueError, match="on-policy training needs int8 or nf4"):
        run.train(prepared(tmp_path / "ppo", *words, "trainer.max_steps=1"))
