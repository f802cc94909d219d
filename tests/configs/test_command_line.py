"""Words of a command line that stand for others."""

import zipfile
from pathlib import Path

from alignlab.configs.command_line import training_arguments

import pytest


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """What `init_from` may name, by what it is."""
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "config.json").write_text('{"model_type": "clip"}')
    (tmp_path / "open clip").mkdir()
    (tmp_path / "open clip" / "open_clip_config.json").write_text("{}")
    with zipfile.ZipFile(tmp_path / "ViT-B-32.pt", "w") as archive:
        archive.writestr("ViT/constants.pkl", b"")
    with zipfile.ZipFile(tmp_path / "weights.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    named = {name: str(tmp_path / name) for name in ("clip", "open clip", "ViT-B-32.pt", "weights.ckpt", "run")}
    return named | {"hub": "openai/clip-vit-base-patch32", "outputs": "outputs/clip", "none": str(tmp_path / "none")}


@pytest.mark.parametrize("name", ["clip", "ViT-B-32.pt", "hub"])
def test_init_from_a_released_net(places: dict[str, str], name: str) -> None:
    words = ["model=clip", f"init_from={places[name]}", "data=csv", "data.path=a.csv"]
    net = ["model/net=clip_pretrained", f"model.net.path='{places[name]}'"]
    assert training_arguments(words) == ["model=clip", "data=csv", "data.path=a.csv", *net]
    assert training_arguments([f"init_from={places[name]}", "model=albef"]) == [words[1], "model=albef"]
    assert training_arguments([*words, "model/net=clip_tiny"]) == [*words, "model/net=clip_tiny"]


def test_a_place_with_a_space(places: dict[str, str]) -> None:
    *_, word = training_arguments(["experiment=own_pictures", f"init_from='{places['open clip']}'"])
    assert word == f"model.net.path='{places['open clip']}'"


@pytest.mark.parametrize("name", ["weights.ckpt", "run", "outputs", "none"])
def test_init_from_a_run_or_its_weights(places: dict[str, str], name: str) -> None:
    words = ["model=clip", f"init_from={places[name]}"]
    assert training_arguments(words) == words
