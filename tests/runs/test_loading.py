"""`alignlab.load` as a user calls it: a run directory, a released net."""

from pathlib import Path

import alignlab
from pictures_run import load_subject, write_pictures, write_run
from tiny_released import CAPTIONS, clip_folder, pictures

import numpy as np
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


TASKS = {
    "albef_vqa": ("emoji_scenes_vqa", ()),
    "clip_vqa": ("emoji_scenes_vqa", ("data.hide=pictures",)),
    "albef_nlvr2": ("emoji_scenes_nlvr2", ()),
    "clip_entailment": ("emoji_scenes_nlvr2", ("model.classes=2", "model.pictures=2")),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_answers_as_in_its_validation(tmp_path: Path, name: str) -> None:
    source, words = TASKS[name]
    model = alignlab.load(write_run(tmp_path / "run", name, *words, "data.num_val=2", source=source))
    rows, pictures = model.data.source, getattr(model.net, "pictures", getattr(model.system, "pictures", 1))
    found = []
    for serial in range(rows.num_rows("val")):
        row = rows.question(serial, "val") if hasattr(rows, "question") else rows.row(serial, "val")
        shown = [row.picture] if hasattr(row, "picture") else row.pictures
        said = model.answer([Image.fromarray(picture) for picture in shown], row.text, top_k=2)
        assert len(said.probabilities) == 2 and said.probabilities[said.answer] == said.probability
        assert (said.free is not None) == (name == "albef_vqa")
        found.append(said.probability)
    wanted = []
    for batch in model.data.val_dataloader():
        batch = model.data.on_after_batch_transfer(batch, 0)
        with torch.no_grad():
            if name == "albef_vqa":
                scores = model.net.rank(model.net.ask(batch.image, batch.ids, batch.mask), batch.candidates)
            else:
                scores = model.net(batch.image if pictures == 2 else batch.image.view(-1, 1, 3, 48, 48), *batch[1:3])
        wanted += scores.softmax(1).amax(1).tolist()
    assert found == pytest.approx(wanted, abs=1e-5) and max(found) - min(found) > 1e-4
    with pytest.raises(ValueError, match=rf"3 pictures, but (this run looks at {pictures}|a question is about one)"):
        model.answer([Image.new("RGB", (9, 9))] * 3, "is there a dog")


def test_what_a_task_cannot_say_is_one_line(tmp_path: Path) -> None:
    model = alignlab.load(write_run(tmp_path / "run", "albef_entailment", source="emoji_scenes_entailment"))
    grey = Image.new("RGB", (9, 9))
    with pytest.raises(ValueError, match=r"fine-tuned for contradiction, .* ask it with answer\(picture, text\)"):
        model.probabilities(grey, ["a cat", "a dog"])
    with pytest.raises(ValueError, match="top_k is 0; it must be at least 1"):
        model.answer(grey, "a cat", top_k=0)
    with pytest.raises(ValueError, match="FusedClassifier has no head that matches"):
        model.heat_map(grey, "a cat")
    plain = alignlab.load(write_run(tmp_path / "clip", "clip"))
    with pytest.raises(ValueError, match="answer needs a run that was fine-tuned for answers or labels"):
        plain.answer(grey, "what is it")


def test_encode_is_that_of_sentence_transformers(tmp_path: Path) -> None:
    model, grey = alignlab.load(write_run(tmp_path / "run", "clip")), Image.new("RGB", (60, 40), "grey")
    grey.save(tmp_path / "grey.png")
    texts = ["a cat left of a dog", "a dog", "a red car"]
    found = model.encode(texts, batch_size=2, normalize_embeddings=True)
    assert isinstance(found, np.ndarray) and found.dtype == np.float32 and found.shape == (3, 128)
    np.testing.assert_allclose(found, model.text_features(texts).numpy(), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert model.encode("a dog").shape == (128,) and model.encode([]).shape == (0, 128)
    mixed = model.encode(["a dog", grey, tmp_path / "grey.png"], convert_to_tensor=True)
    torch.testing.assert_close(mixed[1:], model.image_features([grey, grey]))
    torch.testing.assert_close(mixed[0], torch.from_numpy(found[1]), rtol=0, atol=1e-6)


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
    with pytest.raises(ValueError, match="Clip has no head that matches a picture with a text; ALBEF has"):
        model.heat_map(files[0], "a cat")
    with pytest.raises(ValueError, match="/nowhere is neither a folder nor a file"):
        alignlab.load("/nowhere")
