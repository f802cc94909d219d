"""`alignlab.load` as a user calls it: a run directory, a released net."""

from pathlib import Path

import alignlab
from pictures_run import load_subject, write_pictures, write_run
from tiny_released import CAPTIONS, clip_folder, pictures

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, CLIPModel


def test_a_run_of_albef(tmp_path: Path) -> None:
    subject = load_subject(write_run(tmp_path / "run", "albef"))
    captions = write_pictures(subject, tmp_path / "scenes")
    files = [tmp_path / "scenes" / f"{number:02}.png" for number in range(12)]

    model = alignlab.load(tmp_path / "run")
    similarity = model.similarity(files[:3], captions)
    assert similarity.shape == (3, 12)
    torch.testing.assert_close(
        similarity, subject.encode_pictures(files[:3]).features @ subject.encode_texts(captions)[0].features.T
    )
    assert model.probabilities(files[0], captions).sum().item() == pytest.approx(1, abs=1e-5)
    scores = model.match(files[0], captions[:2])
    assert len(scores) == 2 and 0 < scores[0].probability < 1
    assert model.fused_features(files[0], captions[:2]).shape[0] == 2
    heat = model.heat_map(files[0], captions[0])
    side = subject.datamodule.image_size
    assert heat and all(word in captions[0] and x.shape == (side, side) and x.min() >= 0 for word, x in heat.items())
    assert not any(p.requires_grad for p in model.net.parameters())


def test_a_released_clip_in_five_lines(tmp_path: Path) -> None:
    pictures(tmp_path)
    folder = clip_folder(tmp_path / "clip")
    files = [tmp_path / "pictures" / f"{number}.png" for number in range(len(CAPTIONS))]
    model = alignlab.load(folder)
    ours = model.similarity([files[0], Image.open(files[1]), *files[2:]], CAPTIONS)

    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    inputs = processor(
        images=[Image.open(f) for f in files], text=CAPTIONS, padding=True, truncation=True, return_tensors="pt"
    )
    theirs = CLIPModel.from_pretrained(folder)(**inputs)
    torch.testing.assert_close(ours, theirs.image_embeds @ theirs.text_embeds.T, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="Clip has no fusion; ALBEF has"):
        model.heat_map(files[0], "a cat")
    with pytest.raises(ValueError, match="/nowhere is neither a folder nor a file"):
        alignlab.load("/nowhere")
