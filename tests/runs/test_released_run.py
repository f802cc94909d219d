"""A run from a released net: trained, resumed without its folder, written out for others, read in again."""

import shutil
from collections.abc import Callable
from pathlib import Path

from alignlab.evaluation.retrieval import recall_from_features
from alignlab.runs import train as run
from alignlab.runs.building import load_system
from alignlab.tools.blend import blend
from alignlab.tools.convert import to_open_clip, to_transformers
from tiny_released import CAPTIONS, clip_folder, pictures

import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import AutoProcessor, CLIPModel

Prepare = Callable[..., DictConfig]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("released_run")
    pictures(folder)
    clip_folder(folder / "clip")
    return folder


def _classes(place: Path) -> Path:
    for number, name in enumerate(("cat", "cat", "dog", "dog")):
        (place / "classes" / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(place / "pictures" / f"{number}.png", place / "classes" / name)
    return place / "classes"


def test_in_trained_a_step_out_and_in_again(place: Path, prepared: Prepare) -> None:
    words = ["model=clip", "model/net=clip_pretrained", f"model.net.path={place}/clip", "model.net.freeze=image"]
    data = ["data=image_text", f"data.annotations={place}/captions.jsonl", "data.batch_size=4", "data.num_workers=0"]
    rest = ["callbacks=default", "trainer=cpu", "trainer.max_steps=1", "callbacks.curves=null"]
    result = run.train(prepared(place / "run", *words, *data, *rest))
    assert result.status == "ok" and result.steps == 1
    before = load_file(place / "clip" / "model.safetensors")
    (place / "clip").rename(place / "moved")  # a run needs it no more

    system, datamodule = load_system(place / "run")
    datamodule.batch_size = len(CAPTIONS)
    assert to_transformers(place / "run", place / "out") == len(before)
    after = load_file(place / "out" / "model.safetensors")
    assert {name: value.shape for name, value in before.items()} == {n: v.shape for n, v in after.items()}
    frozen = {name for name in before if name.startswith("vision_model.")}
    assert all(before[name].equal(after[name]) for name in frozen) and len(frozen) > 40
    changed = {name for name in before if not before[name].equal(after[name])}
    assert "text_projection.weight" in changed and "text_model.encoder.layers.0.mlp.fc1.weight" in changed

    model, processor = (
        CLIPModel.from_pretrained(place / "out"),
        AutoProcessor.from_pretrained(place / "out", backend="pil"),
    )
    files = [Image.open(place / "pictures" / f"{number}.png") for number in range(len(CAPTIONS))]
    inputs = processor(images=files, text=CAPTIONS, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        theirs, (batch,) = model(**inputs), datamodule.retrieval_dataloader()
        ours = system.net(batch.image, batch.ids, batch.mask)
    assert_close(ours.image, theirs.image_embeds, rtol=0, atol=1e-5)
    assert_close(ours.text, theirs.text_embeds, rtol=0, atol=1e-5)
    assert_close(ours.scale * ours.image @ ours.text.T, theirs.logits_per_image, rtol=0, atol=2e-5)

    curve = blend(place / "run", (0.0, 0.5, 1.0), str(place / "moved"), classes=_classes(place))
    assert [point.alpha for point in curve] == [0.0, 0.5, 1.0]
    whole = recall_from_features(ours.text, ours.image, torch.arange(len(CAPTIONS)), ks=(1,))
    assert curve[2].recall == pytest.approx(sum(whole.values()) / 2)
    with torch.no_grad():
        own = CLIPModel.from_pretrained(place / "moved")
        texts = processor(text=["a photo of a cat", "a photo of a dog"], padding=True, return_tensors="pt")
        texts |= {"pixel_values": inputs["pixel_values"][:4]}
        best = own(**texts).logits_per_image.argmax(1)
    assert curve[0].accuracy == (best == torch.tensor([0, 0, 1, 1])).float().mean().item()  # theirs of an export, ours
    blend(place / "run", (0.5,), str(place / "moved"), target=place / "middle")
    middle = load_file(place / "middle" / "model.safetensors")
    assert_close(
        middle["text_projection.weight"], (before["text_projection.weight"] + after["text_projection.weight"]) / 2
    )

    again = prepared(place / "again", *words[:2], f"model.net.path={place}/out", *data, *rest)
    again.optim.lr = 1e-30  # moves nothing
    run.train(again)
    to_transformers(place / "again", place / "out_again")
    once_more = load_file(place / "out_again" / "model.safetensors")
    assert all(after[name].equal(value) for name, value in once_more.items())
    with pytest.raises(ValueError, match=r"convert: .*out is there already"):
        to_open_clip(place / "run", place / "out")
    assert to_open_clip(place / "run", place / "open_clip") == 2 + 6 + 6 * 12 + 6


def test_a_released_net_answers_questions(prepared: Prepare, tmp_path: Path) -> None:
    """Its tokenizer has no [CLS] and [SEP], which answers of the data had to have."""
    clip_folder(tmp_path / "clip")
    words = ["model=clip_vqa", "model/net=clip_pretrained", f"model.net.path={tmp_path}/clip", "data.num_val=2"]
    rest = ["data.batch_size=8", "data.num_workers=0", "trainer=cpu", "trainer.max_steps=1", "callbacks.curves=null"]
    assert run.train(prepared(tmp_path / "run", *words, *rest)).status == "ok"
    system, datamodule = load_system(tmp_path / "run")
    assert system.net.head[2].out_features == datamodule.vocabulary.answers == len(datamodule.source.answers)
