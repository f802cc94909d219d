"""Both towers as ONNX: onnxruntime's vectors are torch's for any number of rows. Needs the extra onnx; without it, a line."""

import importlib.util
from functools import partial
from pathlib import Path

from alignlab.data.image_text.modules import PairDataModule
from alignlab.data.image_text.vocabulary import train_tokenizer
from alignlab.models.clip import Clip
from alignlab.models.released import onnx_files
from alignlab.models.released.net import pretrained_clip
from alignlab.models.text import TextTower
from alignlab.models.vision import vision_transformer
from alignlab.types.recipes import PictureRecipe, TextRecipe
from tiny_released import CAPTIONS, clip_folder, pictures, siglip_folder

import pytest
import torch

THERE = all(importlib.util.find_spec(name) for name in onnx_files.NEEDS)


def of_the_house() -> tuple:
    """As model=siglip makes it: a convolutional stem, CLIP's text tower, a bias."""
    vision = partial(vision_transformer, image_size=32, patch_size=8, width=32, depth=2, heads=2, stem="conv")
    text = partial(TextTower, context_length=12, width=32, depth=2, heads=2)
    tokenizer, half = train_tokenizer(CAPTIONS), (0.5, 0.5, 0.5)
    net = Clip(vision, text, vocab_size=len(tokenizer), embed_dim=16, logit_bias=-3.0)
    return net, tokenizer, TextRecipe(12, (tokenizer.cls_token_id,), (), 0), PictureRecipe(32, half, half)


def released(folder: Path, make) -> tuple:
    lists = {"annotations": str(pictures(folder)), "like": str(make(folder / "net")), "num_workers": 0}
    data = PairDataModule("alignlab.data.image_text.pairs.ImageTextPairs", **lists)
    data.setup()
    return pretrained_clip(lists["like"], vocab_size=data.vocabulary.size), data.tokenizer, *data.recipes


@pytest.mark.skipif(not THERE, reason="needs the extra onnx: onnx, onnxscript, onnxruntime")
@pytest.mark.parametrize("kind", ["house", "clip", "siglip"])
def test_onnxruntime_gives_torchs_vectors(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    makers = {"clip": clip_folder, "siglip": siglip_folder}
    net, tokenizer, text, picture = of_the_house() if kind == "house" else released(tmp_path, makers[kind])
    assert onnx_files.write_onnx(net, tmp_path / "out", tokenizer, text, picture) > 40
    sessions = {name: onnxruntime.InferenceSession(tmp_path / "out" / f"{name}.onnx") for name in ("image", "text")}
    for rows, tokens in ((1, 4), (7, 9)):
        tokens = text.context_length if text.whole else tokens
        pixels = torch.randn(rows, 3, picture.size, picture.size)
        ids = torch.randint(3, len(tokenizer), (rows, tokens))
        mask = torch.ones(rows, tokens, dtype=torch.bool)
        if not text.whole:
            mask[-1, 3:] = False
        with torch.no_grad():
            wanted = net.encode_image(pixels), net.encode_text(ids, mask)
        given = (
            sessions["image"].run(None, {"pixels": pixels.numpy()}),
            sessions["text"].run(
                None, {"ids": ids.numpy(), "mask": mask.numpy()} if not text.whole else {"ids": ids.numpy()}
            ),
        )
        for ours, theirs in zip(wanted, given, strict=True):
            torch.testing.assert_close(torch.from_numpy(theirs[0]), ours, rtol=0, atol=1e-5)
    monkeypatch.setattr(onnx_files, "TOLERANCE", -1.0)
    with pytest.raises(ValueError, match=r"image.onnx: onnxruntime's vectors are .* off torch's, more than -1"):
        onnx_files.write_onnx(net, tmp_path / "again", tokenizer, text, picture)


@pytest.mark.skipif(THERE, reason="the extra is there")
def test_without_the_extra_it_is_a_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"to-onnx needs onnx.*: pip install 'alignlab\[onnx\]'"):
        onnx_files.write_onnx(*of_the_house()[:1], tmp_path / "out", *of_the_house()[1:])
