"""Language runs from config to run directory: SFT, LoRA DPO on its export, reward; resumed equals uninterrupted; what is exported loads."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

from alignlab.data.language import movies
from alignlab.data.language.rated_reviews import RatedTexts, rated_reviews
from alignlab.models.language.loading import load_language_model
from alignlab.models.language.paths import load_tokenizer, resolve_model
from alignlab.models.language.reward import load_reward_model
from alignlab.runs import train as run
from alignlab.runs.building import load_system

import pytest
import torch
from omegaconf import DictConfig

Prepare = Callable[..., DictConfig]
SMALL = (
    "data.batch_size=4",
    "++trainer.limit_val_batches=2",
    "trainer.val_check_interval=2",
    "callbacks.progress=null",
)
NET = ("model.net.width=32", "model.net.depth=1", "model.net.heads=2", "+data.vocab_size=300")


@pytest.fixture(autouse=True)
def fewer_reviews(monkeypatch: pytest.MonkeyPatch) -> None:
    few = RatedTexts(rated_reviews().texts[::50], rated_reviews().shares[::50])
    monkeypatch.setattr(movies, "rated_reviews", lambda name="movie_reviews": few)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def answers(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "samples" / "answers.jsonl").read_text().splitlines()]


def test_sft_then_dpo_with_lora_resumed_bit_for_bit(
    prepared: Prepare, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("peft")
    sft, whole, halves = tmp_path / "sft", tmp_path / "whole", tmp_path / "halves"
    with caplog.at_level(logging.WARNING, "alignlab"):
        run.train(
            prepared(sft, "model=sft", *SMALL, *NET, "trainer.max_steps=2", "optim.lr=0.02", "optim.warmup_steps=0")
        )
    assert [m for m in caplog.messages if "is 20 times the 0.001" in m and "from nothing" in m]
    assert len(answers(sft)) == 4 and any(row["before"] != row["after"] for row in answers(sft))
    assert resolve_model(str(tmp_path)) == (str(sft / "export"), None)
    dpo = (
        "model=dpo",
        *SMALL,
        f"model.net.path={sft}",
        "model.peft.rank=2",
        "model.peft.dropout=0.1",
        "optim.schedule=constant",
    )
    run.train(prepared(whole, *dpo, "trainer.max_steps=4"))
    run.train(prepared(halves, *dpo, "trainer.max_steps=2"))
    run.train(prepared(halves, f"resume={halves}", *dpo, "trainer.max_steps=4"))
    for name, value in weights(whole).items():
        assert torch.equal(weights(halves)[name], value), name
    assert answers(halves) == answers(whole)  # said before the first step of all
    base, adapter = resolve_model(str(whole))
    assert base == str((sft / "export").resolve()) and adapter == str(whole / "export")
    ids = torch.tensor([load_tokenizer(str(whole)).encode("a good film")])
    assert load_language_model(str(whole))(ids).logits.shape[-1] == 300


def test_a_reward_run_exports_what_it_measured(prepared: Prepare, tmp_path: Path) -> None:
    found = run.train(
        prepared(tmp_path, "model=reward", *SMALL, "data.group_size=4", "trainer.max_steps=2", "data.max_length=48")
    )
    assert {"val/all_pairs_ece", "val/bag_of_words_accuracy_above_1", "val/margin_decile_1_accuracy"} <= set(
        found.metrics
    )
    model = load_reward_model(tmp_path)
    assert model.std.item() == pytest.approx(found.metrics["val/reward_std"], rel=0.5) and model.scale.item() != 1.0
    system, data = load_system(tmp_path)
    batch = next(iter(data.val_dataloader()))
    torch.testing.assert_close(model(batch.ids, batch.mask), system.net(batch.ids, batch.mask))
