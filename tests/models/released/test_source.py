"""What is said of released nets that can't be read, or that the config contradicts; a program's archive is read, not run."""

import json
import pickle
import shutil
import zipfile
from pathlib import Path

from alignlab.data.image_text.modules import PairDataModule
from alignlab.files.torchscript import read_torchscript
from alignlab.models.released.net import pretrained_clip
from alignlab.models.released.source import read_released
from tiny_released import clip_folder, open_clip_folder, openai_file, siglip_folder

import pytest
import torch


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("nets")
    clip_folder(place / "clip")
    siglip_folder(place / "siglip")
    open_clip_folder(place / "open_clip")
    return place


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("clip", {"mean": (0.5, 0.5, 0.5)}, r"mean is \[0.5, 0.5, 0.5\]; .*clip was trained with \[0.4, 0.5, 0.6\]"),
        ("open_clip", {"std": (1.0, 1.0, 1.0)}, "std is"),
        ("clip", {"image_size": 36}, "image_size is 36; .* patches of 8 pixels and was trained at 32"),
        ("clip", {"context_length": 25}, "context_length is 25; .* no positions beyond: take 24"),
        ("siglip", {"context_length": 12}, "context_length is 12; .* reads padding like words: take 16"),
        ("clip", {"append_sep": True}, "append_sep=true"),
        ("clip", {"tokenizer": "{nets}/siglip"}, "tokenizer=.*/siglip: .*comes with its own"),
        ("none", {}, "like=.*/none is neither a folder nor a file nor a repository"),
    ],
)
def test_a_setting_that_contradicts_the_net_is_refused(nets: Path, kind: str, settings: dict, message: str) -> None:
    settings = {k: v.format(nets=nets) if isinstance(v, str) else v for k, v in settings.items()}
    with pytest.raises(ValueError, match=message) as caught:
        PairDataModule(
            "alignlab.data.emoji.scene_pairs.EmojiScenePairs", like=str(nets / kind), num_train=8, num_val=4, **settings
        ).setup()
    assert "\n" not in str(caught.value)


def edited(folder: Path, name: str, **changes) -> Path:
    content = json.loads((folder / name).read_text())
    for key, value in changes.items():
        part, _, last = key.rpartition("__")
        (content[part] if part else content)[last] = value
    (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("kind", "name", "changes", "message"),
    [
        ("clip", "preprocessor_config.json", {"do_normalize": False}, "its processor has do_normalize"),
        ("clip", "preprocessor_config.json", {"size": {"shortest_edge": 40}}, "only squares of one size"),
        (
            "siglip",
            "preprocessor_config.json",
            {"size": {"height": 48, "width": 48}},
            "of 48 pixels, its net is for 32",
        ),
        ("clip", "config.json", {"vision_config__hidden_act": "relu"}, "hidden_act=relu is none of"),
        ("clip", "config.json", {"model_type": "bert"}, "its config.json says bert"),
        ("open_clip", "open_clip_config.json", {"model_cfg__custom": 7}, "model.custom=7"),
        ("open_clip", "open_clip_config.json", {"preprocess_cfg__resize_mode": "longest"}, "resize_mode=longest"),
    ],
)
def test_a_net_that_is_otherwise_is_refused(nets: Path, tmp_path: Path, kind, name, changes, message) -> None:
    folder = edited(shutil.copytree(nets / kind, tmp_path / kind), name, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        read_released(str(folder))
    assert str(caught.value).startswith(f"path={folder}") and "\n" not in str(caught.value)


def test_weights_that_do_not_belong_to_their_config_are_refused(nets: Path, tmp_path: Path) -> None:
    folder = edited(
        shutil.copytree(nets / "open_clip", tmp_path / "o"), "open_clip_config.json", model_cfg__embed_dim=9
    )
    with pytest.raises(ValueError, match=r"path=.*of other sizes than its config"):
        pretrained_clip(str(folder), vocab_size=522)
    torch.save({"visual.conv1.weight": torch.zeros(2, 2)}, tmp_path / "bare.pt")
    with pytest.raises(ValueError, match=r"lay its open_clip_config.json beside it"):
        read_released(str(tmp_path / "bare.pt"))
    with pytest.raises(ValueError, match="vocabulary has 50 tokens, the pretrained net 522"):
        pretrained_clip(str(nets / "open_clip"), vocab_size=50)


def test_nothing_of_an_archive_is_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):
            return (Path(tmp_path / "sprung").touch, ())

    file = openai_file(tmp_path / "openai", jit=True)
    assert len(read_torchscript(file, "path")) > 40
    with zipfile.ZipFile(tmp_path / "trap.pt", "w") as archive:
        archive.writestr("x/constants.pkl", b"")
        archive.writestr("x/data.pkl", pickle.dumps({"a": Trap()}, protocol=2))
    with pytest.raises(ValueError, match="damaged TorchScript archive"):
        read_released(str(tmp_path / "trap.pt"))
    assert not (tmp_path / "sprung").exists()
