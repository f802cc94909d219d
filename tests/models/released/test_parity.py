"""Released nets through the data path, tokenizer included, against their own pipelines: transformers' here, open_clip's as written
down by `open_clip_record.py`."""

import json
from pathlib import Path

from alignlab.data.image_text.modules import PairDataModule
from alignlab.losses.contrastive import InfoNce, SigLip
from alignlab.models.clip import Clip
from alignlab.models.released.net import pretrained_clip
from alignlab.models.released.open_clip_layout import from_open_clip, to_open_clip
from alignlab.models.released.transformers_layout import from_transformers, to_transformers
from alignlab.types.pairs import PairBatch
from tiny_released import (
    CAPTIONS,
    SIZES,
    clip_folder,
    open_clip_folder,
    open_clip_state,
    openai_file,
    pictures,
    siglip_folder,
)

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

RECORDED = json.loads(Path(__file__).with_name("recorded.json").read_text())
CLOSE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("released")
    pictures(place)
    clip_folder(place / "clip")
    siglip_folder(place / "siglip")
    open_clip_folder(place / "open_clip")
    openai_file(place / "openai", jit=True)
    openai_file(place / "openai_state", jit=False)
    return place


def opened(folder: Path, path: Path, **settings) -> tuple[Clip, PairDataModule]:
    data = PairDataModule(
        "alignlab.data.image_text.pairs.ImageTextPairs",
        annotations=str(folder / "captions.jsonl"),
        like=str(path),
        batch_size=6,
        num_workers=0,
        **settings,
    )
    data.setup()
    return pretrained_clip(str(path), vocab_size=data.vocabulary.size), data


def ours(net: Clip, data: PairDataModule) -> dict[str, Tensor]:
    """Features, logits and loss of the held-out pictures, which are all, in the list's order."""
    (batch,) = data.retrieval_dataloader()
    pairs = net(batch.image, batch.ids, batch.mask)
    bias = 0.0 if pairs.bias is None else pairs.bias
    loss = (InfoNce() if pairs.bias is None else SigLip())(pairs.image, pairs.text, pairs.scale, pairs.bias)
    logits = pairs.scale * pairs.image @ pairs.text.T + bias
    return {"image": pairs.image, "text": pairs.text, "logits": logits, "loss": loss}


def transformers_pipeline(folder: Path, path: Path, **texts) -> dict[str, Tensor]:
    model = AutoModel.from_pretrained(path).train()
    files = [Image.open(folder / "pictures" / f"{number}.png") for number in range(len(CAPTIONS))]
    pixels = AutoImageProcessor.from_pretrained(path, backend="pil")(files, return_tensors="pt").pixel_values
    output = model(pixel_values=pixels, **texts, return_loss=True)
    logits = output.logits_per_image
    return {"image": output.image_embeds, "text": output.text_embeds, "logits": logits, "loss": output.loss}


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("training", [False, True])
def test_features_logits_loss_and_gradients_equal_transformers(folder: Path, kind: str, training: bool) -> None:
    path = folder / kind
    if kind == "clip":
        own = AutoTokenizer.from_pretrained(path)
        texts = dict(own(CAPTIONS, padding=True, truncation=True, max_length=24, return_tensors="pt"))
    else:  # its tokenizer needs a package: what that gives is written down
        texts = {"input_ids": torch.tensor(RECORDED["siglip_ids"])}
    theirs = transformers_pipeline(folder, path, **texts)
    net, data = opened(folder, path)
    got = ours(net.train(training), data)
    for name, value in theirs.items():
        assert_close(got[name], value, **CLOSE, msg=lambda text, name=name: f"{name}: {text}")
    if training:
        theirs["loss"].backward(), got["loss"].backward()
        assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize(
    ("kind", "name"), [("open_clip", ""), ("openai", "ViT-tiny.pt"), ("openai_state", "ViT-tiny.pt")]
)
@pytest.mark.parametrize("training", [False, True])
def test_features_logits_and_loss_equal_open_clip(folder: Path, kind: str, name: str, training: bool) -> None:
    net, data = opened(folder, folder / kind / name)
    wanted = RECORDED[kind.removesuffix("_state")]
    got = ours(net.train(training), data)
    for key in ("image", "text", "logits", "loss"):
        assert_close(got[key], torch.tensor(wanted[key]), **CLOSE, msg=lambda text, key=key: f"{key}: {text}")
    ids, mask = data.encode_texts(CAPTIONS)
    theirs = torch.tensor(wanted["ids"])
    assert ids.equal(theirs[:, : ids.shape[1]].where(mask, ids)) and not theirs[:, ids.shape[1] :].any()


def test_a_training_batch_is_seen_as_their_own_pipeline_sees_its_pictures(folder: Path) -> None:
    """What the trainer gets: crops, normalised behind the loader, and texts with their end."""
    path = folder / "clip"
    net, data = opened(folder, path)
    (batch,) = data.train_dataloader()
    crops = [Image.fromarray(x.permute(1, 2, 0).numpy()) for x in batch.image]
    trained = data.on_after_batch_transfer(batch, 0)
    assert isinstance(trained, PairBatch)
    pixels = AutoImageProcessor.from_pretrained(path, backend="pil")(crops, return_tensors="pt").pixel_values
    pairs = net.train()(*trained[:3])
    order = [data.source.train_pair(serial).caption for serial in range(6)]  # the source's own permutation
    assert sorted(order) == sorted(CAPTIONS)
    model = AutoModel.from_pretrained(path).train()
    image = model.get_image_features(pixels)
    image = getattr(image, "pooler_output", image)
    assert_close(pairs.image, torch.nn.functional.normalize(image, dim=-1), **CLOSE)
    (pairs.image.sum() + pairs.text.sum()).backward()


def test_names_go_there_and_back_bit_for_bit(folder: Path) -> None:
    for kind in ("clip", "siglip"):
        state = AutoModel.from_pretrained(folder / kind).state_dict()
        back = to_transformers(from_transformers(state), state)
        assert set(back) == set(state) and all(back[name].equal(value) for name, value in state.items())
    state = open_clip_state()
    back = to_open_clip(from_open_clip(state, SIZES), SIZES)
    assert set(back) == set(state) and all(back[name].equal(value) for name, value in state.items())
