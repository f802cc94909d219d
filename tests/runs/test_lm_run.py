"""Pre-training runs from config to run directory: resumed equals uninterrupted, what is exported loads, every preset, items."""

import json
from collections.abc import Callable
from pathlib import Path

from alignlab.corpus.packing import pack
from alignlab.models.language.loading import load_language_model
from alignlab.models.language.paths import load_tokenizer
from alignlab.runs import train as run
from alignlab.runs.building import load_system

import pytest
import torch
from omegaconf import DictConfig

Prepare = Callable[..., DictConfig]
NET = ("model.net.width=32", "model.net.depth=1", "model.net.heads=4", "+data.vocab_size=300")
SHORT = (
    "data.batch_size=4",
    "data.max_length=32",
    "++trainer.limit_val_batches=2",
    "trainer.val_check_interval=2",
    "callbacks.progress=null",
)


@pytest.fixture
def text(tmp_path: Path) -> str:
    file = tmp_path / "text.jsonl"
    sentences = (f"{a} and {b} make {a + b} ." for a in range(20) for b in range(20))
    file.write_text("".join(json.dumps({"text": sentence * 3}) + "\n" for sentence in sentences))
    return f"+data.path={file}"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize("packed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_resumed_equals_uninterrupted_and_the_export_speaks(
    prepared: Prepare, tmp_path: Path, text: str, packed: bool
) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    if packed:
        pack([tmp_path / "text.jsonl"], None, tmp_path / "tokens", vocab_size=300)
        text = f"+data.path={tmp_path / 'tokens'}"
    how = ("model=lm", "model.net.kv_heads=2", *NET, *SHORT, text, "+data.batch_start=0.25", "+data.batch_ramp=3")
    run.train(prepared(whole, *how, "trainer.max_steps=4"))
    run.train(prepared(halves, *how, "trainer.max_steps=2", "optim.schedule=constant"))
    run.train(prepared(halves, f"resume={halves}", *how, "trainer.max_steps=4"))
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(halves)[name], value, rtol=0, atol=0, msg=name)
    system, _ = load_system(whole)
    ids = torch.randint(4, 300, (2, 9))
    model = load_language_model(str(whole))
    torch.testing.assert_close(model(ids).logits, system.net.eval().logits(ids), rtol=1e-5, atol=1e-5)
    assert load_tokenizer(str(whole)).decode(ids[0]) and model.config.eos_token_id is not None


@pytest.mark.parametrize("net", ["lm_gpt2", "lm_bloom", "lm_llama", "lm_mixture", "lm_glm_prefix"])
def test_every_preset_trains(prepared: Prepare, tmp_path: Path, text: str, net: str) -> None:
    heads = ("model.net.kv_heads=2",) if net in ("lm_llama", "lm_mixture") else ()
    result = run.train(
        prepared(tmp_path / "run", "model=lm", f"model/net={net}", *NET, *heads, *SHORT, text, "trainer.max_steps=2")
    )
    assert result.status == "ok" and 0 < result.metrics["val/loss"] < 7
    assert (tmp_path / "run" / "export" / "config.json").exists() == (net != "lm_glm_prefix")


def test_items_of_a_ladder(prepared: Prepare, tmp_path: Path) -> None:
    small = ("model.net.width=16", "+data.examples=300", "+data.num_items=30", "data.batch_size=30")
    quick = ("trainer.max_steps=4", "trainer.val_check_interval=4", "callbacks.progress=null")
    result = run.train(prepared(tmp_path / "run", "experiment=ladder_arithmetic", *small, *quick))
    rows = [json.loads(line) for line in (tmp_path / "run" / "items.jsonl").read_text().splitlines()]
    assert len(rows) == 30 and len({row["id"] for row in rows}) == 30
    assert list(rows[0]) == ["id", "task", "target", "prediction", "target_logprobs", "correct"]
    assert all(len(row["target_logprobs"]) == len(row["target"]) == 3 for row in rows)
    assert result.metrics["val/exact_match"] == sum(row["correct"] for row in rows) / 30


def test_grokkings_metrics_are_in_the_table(prepared: Prepare, tmp_path: Path) -> None:
    small = ("+data.modulus=7", "data.batch_size=10", "model.net.width=16")
    quick = ("trainer.max_steps=10", "trainer.val_check_interval=5", "callbacks.progress=null")
    run.train(prepared(tmp_path / "run", "experiment=grokking_modular", *small, *quick))
    header = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/accuracy", "val/accuracy", "step"} <= set(header)
