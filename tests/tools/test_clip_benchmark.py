"""Our runs as models of CLIP_benchmark: what it would call, and where it is installed its own command line."""

import importlib.util
import json
from pathlib import Path

import alignlab
from alignlab.evaluation.retrieval import recall_at_k
from alignlab.tools.clip_benchmark import clip_model, main
from pictures_run import load_subject, write_pictures, write_run

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

HERE = importlib.util.find_spec("clip_benchmark") is not None


@pytest.fixture
def scenes(tmp_path: Path) -> tuple[Path, list[Path], list[str]]:
    """A run, pictures as JPEG files and their captions."""
    run = write_run(tmp_path / "run", "clip")
    captions = write_pictures(load_subject(run), tmp_path / "scenes")
    files = []
    for number in range(len(captions)):
        files.append(tmp_path / "scenes" / f"{number}.jpg")
        Image.open(tmp_path / "scenes" / f"{number:02}.png").resize((60, 50)).save(files[-1])
    return run, files, captions


def test_towers_and_transform_are_those_of_load(scenes) -> None:
    run, files, captions = scenes
    model, transform, tokenizer = clip_model(str(run), device="cpu")
    pictures = [Image.open(file) for file in files]
    loader = DataLoader([(transform(picture), n) for n, picture in enumerate(pictures)], batch_size=5)
    loaded = alignlab.load(run)
    with torch.no_grad():
        found = torch.cat([model.encode_image(image) for image, _ in loader])
        texts = model.encode_text(tokenizer(captions).to("cpu"))
    torch.testing.assert_close(found, loaded.image_features(files), rtol=0, atol=1e-6)
    torch.testing.assert_close(texts, loaded.text_features(captions), rtol=0, atol=1e-6)


@pytest.mark.skipif(HERE, reason="clip-benchmark is installed")
def test_without_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--model", "run"]) == 2
    assert "CLIP_benchmark is an extra, pip install 'alignlab[clip_benchmark]'" in capsys.readouterr().err


@pytest.mark.skipif(not HERE, reason="needs the package clip-benchmark")
def test_its_recall_is_ours(scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flickr8k's format, two captions a picture, through its own data set, loader and metric."""
    run, files, captions = scenes
    rows = [(file.name, text) for n, file in enumerate(files) for text in (captions[n], f"again {captions[n]}")]
    (tmp_path / "list.txt").write_text("image,caption\n" + "\n".join(map(",".join, rows)))
    monkeypatch.chdir(tmp_path)
    words = ["--dataset", "flickr8k", "--dataset_root", "scenes", "--annotation_file", "list.txt", "--no_amp"]
    assert main(["eval", "--model", "./run", *words, "--num_workers", "0", "--recall_k", "1", "5"]) == 0
    said = json.loads((tmp_path / "flickr8k_run_en_zeroshot_retrieval.json").read_text())
    model = alignlab.load(run)
    score = model.text_features([text for _, text in rows]) @ model.image_features(files).T
    ours = recall_at_k(score, torch.arange(len(files)).repeat_interleave(2), (1, 5))
    for k in (1, 5):
        assert said["metrics"][f"image_retrieval_recall@{k}"] == pytest.approx(ours[f"text_to_image_recall_at_{k}"])
        assert said["metrics"][f"text_retrieval_recall@{k}"] == pytest.approx(ours[f"image_to_text_recall_at_{k}"])
    assert main(["eval", "--model", "nowhere", *words]) == 2
