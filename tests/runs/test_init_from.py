"""`init_from`: weights of another method's run are taken where they fit, the rest is said, and nothing that fits is an error."""

import json
from collections.abc import Callable
from pathlib import Path

from alignlab.runs import train as run
from tiny_run import TINY, TINY_ALBEF

import pytest
import torch
from omegaconf import DictConfig

Prepare = Callable[..., DictConfig]
COCA = [
    *(f"model.net.{key}" for key in ("vision.width=32", "vision.depth=1", "text_width=32", "text_layers=1")),
    "model.net.fusion_layers=1",
]
VIT = [
    "model/net=albef_tiny_vit",
    "model.net.encoder.late_interaction_dim=0",
    "model.net.encoder.fusion_positions=false",
]
REST = [*TINY[1:], "trainer.max_steps=1", "data.image_size=32"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_albef_starts_coca_and_a_task_with_words_of_its_own(prepared: Prepare, tmp_path: Path) -> None:
    albef = [word for word in TINY_ALBEF if not word.startswith("callbacks.")]
    run.train(prepared(tmp_path / "a", "model=albef", *VIT, *REST, *albef))
    run.train(prepared(tmp_path / "b", "model=coca", *REST, *COCA, f"init_from={tmp_path}/a", "optim.lr=1e-12"))
    before, after = weights(tmp_path / "a"), weights(tmp_path / "b")
    for name in ("vision.trunk.patch_embed.proj.weight", "embeddings.word.weight", "fusion.0.cross_attention.out.bias"):
        match = [key for key in before if key.startswith("net.encoder.") and key.endswith(name)]
        assert all(torch.allclose(before[key], after[key.replace("net.encoder.", "net.")]) for key in match)
    assert all(
        torch.allclose(x, before[n.replace("net.", "net.encoder.", 1)])
        for n, x in after.items()
        if n != "net.temperature"
    )
    notes = json.loads((tmp_path / "b" / "result.json").read_text())["notes"]
    assert any("taken" in note for note in notes) and any("left out: net.matching_head" in note for note in notes)
    assert not any("begins anew" in note for note in notes)
    # a task whose questions have words of their own
    rest = [word for word in REST if not word.startswith("data=")]
    task = ("model=albef_vqa", *VIT, *rest, *(word for word in albef if "fuse" not in word), "data.num_val=4")
    run.train(prepared(tmp_path / "c", *task, f"init_from={tmp_path}/a", "optim.lr=1e-12", "model.momentum=1.0"))
    before, after = weights(tmp_path / "a"), weights(tmp_path / "c")
    old = len(before["net.encoder.embeddings.word.weight"])
    for words in (
        "net.encoder.embeddings.word.weight",
        "net.decoder.language_head.bias",
        "twin.teacher.encoder.embeddings.word.weight",
    ):
        theirs = before[words.replace("decoder", "encoder").replace("teacher.encoder", "teacher")]
        assert len(after[words]) > old and torch.allclose(after[words][:old], theirs)
    fusion = [
        name for name in before if name.startswith("net.encoder.fusion.") and "cross_attention.key_value" not in name
    ]
    for name in fusion:
        assert torch.allclose(after[name], before[name])
        assert torch.allclose(after[name.replace("encoder.fusion", "decoder.layers")], before[name])
    taught = "twin.teacher.{}fusion.0.feed_forward.inner.weight"
    assert torch.allclose(after[taught.format("encoder.")], before[taught.format("")])
    notes = json.loads((tmp_path / "c" / "result.json").read_text())["notes"]
    assert any("got rows for new words: net.encoder.embeddings.word.weight" in note for note in notes)


def test_clip_starts_a_task_whole_and_albef_by_its_tower(prepared: Prepare, tmp_path: Path) -> None:
    tower = [f"model.net.vision.{key}" for key in ("width=32", "depth=1")]
    run.train(prepared(tmp_path / "a", *TINY, *REST, *tower))
    overrides = (*TINY_ALBEF[:-2], f"init_from={tmp_path}/a", "optim.lr=1e-12")
    run.train(prepared(tmp_path / "b", "model=albef", *VIT, *REST, *overrides))
    before, after = weights(tmp_path / "a"), weights(tmp_path / "b")
    trunk = [name for name in before if name.startswith("net.vision.trunk.")]
    assert len(trunk) > 10
    for name in trunk:
        assert torch.allclose(before[name], after[name.replace("net.", "net.encoder.", 1)]), name
    notes = json.loads((tmp_path / "b" / "result.json").read_text())["notes"]
    assert any("left out: " in note and "net.text." in note for note in notes), notes
    # questions have words of their own, and answers a head
    rest = [word for word in (*REST, *tower) if not word.startswith("data=")]
    start = (f"init_from={tmp_path}/a", "optim.lr=1e-12", "model.momentum=1.0", "data.num_val=4")
    run.train(prepared(tmp_path / "c", "model=clip_vqa", *rest, *start))
    after = weights(tmp_path / "c")
    for net in ("net.clip.", "twin.teacher.clip."):
        for name, value in before.items():
            assert torch.allclose(after[name.replace("net.", net, 1)][: len(value)], value), name
    words = "net.text.token_embedding.weight"
    assert len(after["net.clip.text.token_embedding.weight"]) > len(before[words])
    result = json.loads((tmp_path / "c" / "result.json").read_text())
    assert {"val/accuracy", "val/where_accuracy"} <= result["metrics"].keys()
    assert any("begins anew: net.head" in note for note in result["notes"]), result["notes"]


def test_nothing_that_fits_is_an_error(prepared: Prepare, tmp_path: Path) -> None:
    torch.save({"state_dict": {"other.weight": torch.zeros(3)}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="init_from: nothing in"):
        run.train(prepared(tmp_path / "a", *TINY, f"init_from={tmp_path}/other.pt"))
    with pytest.raises(ValueError, match=r"init_from: .* is neither"):
        run.train(prepared(tmp_path / "b", *TINY, f"init_from={tmp_path}/nowhere"))
