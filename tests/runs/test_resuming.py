"""What a resumed run can change: it takes effect and is noted, or it is refused by name before anything is built."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from alignlab.configs import check as config
from alignlab.configs.command_line import arguments
from alignlab.configs.filling import filled
from alignlab.configs.roots import InferenceRoot
from alignlab.data.loaders import ResumableLoader
from alignlab.runs import resuming
from alignlab.runs import train as run
from alignlab.systems.method_system import MethodSystem
from tiny_run import TINY

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

Prepare = Callable[..., DictConfig]
Compose = Callable[..., DictConfig]


def saved(composed: Compose, folder: Path, *overrides: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(filled(composed(*overrides)), resolve=True))
    return folder


def again(composed: Compose, folder: Path, *overrides: str) -> DictConfig:
    words = arguments([f"resume={folder}", *overrides])
    return resuming.resumed(composed(*words), words)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("data.image_size=96", "data.image_size: a resumed run can't change it (48 -> 96)"),
        ("model.net.embed_dim=64", "model.net.embed_dim: a resumed run can't change it"),
        ("model=siglip", "model.loss._target_: "),
        ("data=emoji", "data.source: "),
        ("data.num_train=99", "data.num_train: "),
        ("optim=muon", "optim._target_: "),
        ("optim.layer_decay=0.5", "optim.layer_decay: "),
        ("ckpt_path=other.ckpt", "ckpt_path: "),
    ],
)
def test_refused_by_name(composed: Compose, tmp_path: Path, override: str, key: str) -> None:
    folder = saved(composed, tmp_path / "run", "model=clip", "data=emoji_scenes")
    with pytest.raises(config.ConfigError) as refused:
        again(composed, folder, override)
    assert any(problem.startswith(key) for problem in refused.value.problems), refused.value.problems
    assert all(f"ckpt_path={folder}/checkpoints/last.ckpt" in problem for problem in refused.value.problems)


def test_taken_and_noted(composed: Compose, tmp_path: Path) -> None:
    folder = saved(composed, tmp_path / "run", "model=clip", "data.batch_size=8")
    cfg = again(composed, folder, "optim.lr=0.25", "data.batch_size=4", "~callbacks.curves", "trainer.max_steps=7")
    lines = resuming.noted(resuming.saved_config(str(folder)), cfg)
    assert "optim.lr: 0.001 -> 0.25" in lines or any(
        line.startswith("optim.lr: ") and line.endswith("0.25") for line in lines
    )
    assert "data.batch_size: 8 -> 4" in lines
    assert "curves" not in cfg.callbacks and any(line.startswith("callbacks.curves.") for line in lines)
    assert resuming.noted(resuming.saved_config(str(folder)), again(composed, folder)) == []


def test_a_key_of_the_saved_data_is_known_though_the_default_model_has_none(composed: Compose, tmp_path: Path) -> None:
    folder = saved(composed, tmp_path / "run", "model=sft", "data=jsonl", "data.path=a.jsonl")
    cfg = again(composed, folder, "data.path=b.jsonl")
    config.check(cfg)
    assert cfg.data.path == "b.jsonl" and cfg.data.kind == "sft"
    with pytest.raises(config.ConfigError, match=r"data\.pack: a resumed run can't change it"):
        again(composed, folder, "data.pack=true")


def test_a_run_that_began_from_a_checkpoint_is_resumed(composed: Compose, tmp_path: Path) -> None:
    folder = saved(composed, tmp_path / "run", "model=clip", "ckpt_path=first.ckpt")
    assert again(composed, folder, "ckpt_path=first.ckpt").ckpt_path == "first.ckpt"
    assert again(composed, folder).ckpt_path == "first.ckpt"


def test_inference_goes_on_with_the_same_questions(composed: Compose, tmp_path: Path) -> None:
    base = ("task=generate", "model_path=gpt2", "prompt_text=x")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(
        OmegaConf.to_yaml(filled(composed(*base, program="infer"), InferenceRoot), resolve=True)
    )
    words = [f"resume={folder}", "sampling.max_new_tokens=7"]
    with pytest.raises(config.ConfigError, match=r"sampling\.max_new_tokens: a resumed run can't change it"):
        resuming.resumed(composed(*base, *words, program="infer"), words, root=InferenceRoot)
    words = [f"resume={folder}", "batch_size=3"]
    assert resuming.resumed(composed(*base, *words, program="infer"), words, root=InferenceRoot).batch_size == 3


def test_a_damaged_config_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: [1")
    with pytest.raises(ValueError, match="can't be read"):
        resuming.saved_config(str(tmp_path))


def test_another_rate_and_batch_size_take_effect(
    prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3 of 8 batches of 8 rows, then batches of 4: the next is the seventh of 16, with the new rate."""
    common = (
        *TINY,
        "optim=adamw",
        "optim.schedule=constant",
        "optim.warmup_steps=0",
        "trainer.val_check_interval=null",
    )
    run.train(prepared(tmp_path, *common, "optim.lr=1e-3", "trainer.max_steps=3"))
    seen: list[tuple[int, int, float]] = []
    step = MethodSystem.training_step

    def training_step(self: MethodSystem, batch: object, index: int) -> torch.Tensor:
        rates = {float(group["lr"]) for group in self.optimizers(use_pl_optimizer=False).param_groups}
        seen.append((index, len(batch.image), max(rates)))
        return step(self, batch, index)

    monkeypatch.setattr(MethodSystem, "training_step", training_step)
    words = [
        f"resume={tmp_path}",
        "optim.lr=0.25",
        "data.batch_size=4",
        "trainer.max_steps=15",
        "optim.weight_decay=0.3",
    ]
    first: list[int] = []
    load = ResumableLoader.load_state_dict
    monkeypatch.setattr(
        ResumableLoader,
        "load_state_dict",
        lambda self, state: (load(self, state), first.append(self.batch_sampler.skip))[0],
    )
    result = run.train(resuming.resumed(prepared(tmp_path, *words), words))
    assert result.status == "ok" and result.steps == 15
    assert seen[0] == (6, 4, 0.25) and first == [6]
    assert [index for index, _, _ in seen] == [*range(6, 16), 0, 1], "the epoch ends after 64 rows, and the next begins"
    notes = json.loads((tmp_path / "result.json").read_text())["notes"]
    assert "resume: optim.lr: 0.001 -> 0.25" in notes and "resume: data.batch_size: 8 -> 4" in notes
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert {group["initial_lr"] for group in state["optimizer_states"][0]["param_groups"]} == {0.25}
    assert 0.3 in {group["weight_decay"] for group in state["optimizer_states"][0]["param_groups"]}


def test_other_numbers_of_accumulated_batches_begin_with_a_step(prepared: Prepare, tmp_path: Path, monkeypatch) -> None:
    common = (*TINY, "trainer.val_check_interval=null", "optim.schedule=constant")
    run.train(prepared(tmp_path, *common, "trainer.max_steps=3"))
    seen: list[int] = []
    step = MethodSystem.training_step
    monkeypatch.setattr(
        MethodSystem, "training_step", lambda self, batch, index: (seen.append(index), step(self, batch, index))[1]
    )
    words = arguments([f"resume={tmp_path}", "trainer.accumulate_grad_batches=2", "trainer.max_steps=5"])
    run.train(resuming.resumed(prepared(tmp_path, *words), words))
    assert seen == [2, 3, 4, 5], "two steps of two batches; the third batch of eight comes again"


def test_weights_of_another_picture_size_start_anew_with_their_optimizer_left(
    prepared: Prepare, tmp_path: Path
) -> None:
    run.train(prepared(tmp_path / "a", *TINY, "trainer.max_steps=2"))
    start = f"ckpt_path={tmp_path}/a/checkpoints/last.ckpt"
    result = run.train(prepared(tmp_path / "b", *TINY, "trainer.max_steps=1", "data.image_size=64", start))
    assert result.status == "ok" and result.steps == 1
    assert any("alone are taken" in note and "pos_embed" in note for note in result.notes)
    result = run.train(prepared(tmp_path / "c", *TINY, "trainer.max_steps=1", "optim=muon", start))
    assert result.steps == 1 and any("it was alignlab.optim.adamw" in note for note in result.notes)


def test_a_program_that_ends_itself_is_an_error_and_no_interruption(
    prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def training_step(self: MethodSystem, batch: object, index: int) -> torch.Tensor:
        raise SystemExit("enough")

    monkeypatch.setattr(MethodSystem, "training_step", training_step)
    with pytest.raises(ValueError, match=r"test_resuming.py:\d+ ended the program amid the run .SystemExit: enough"):
        run.train(prepared(tmp_path, *TINY))
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["status"] == "failed" and "SystemExit" in found["reason"]
    assert os.path.exists(tmp_path / "train.log")
