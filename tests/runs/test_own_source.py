"""Runs whose nets began with weights of a file need it no more."""

from pathlib import Path

from alignlab.configs.starting import started_from
from alignlab.runs.own_source import from_own_source, is_gone

from omegaconf import DictConfig, OmegaConf


def config(file: Path, freeze: str = "image") -> DictConfig:
    vision = {"_target_": "alignlab.models.vision.vision_transformer", "name": "resnet10t", "pretrained": str(file)}
    net = {"_target_": "alignlab.models.clip.Clip", "freeze": freeze, "vision": vision, "text": {"width": 8}}
    cfg = OmegaConf.create({"model": {"net": net}, "data": {"image_size": 32}})
    OmegaConf.set_struct(cfg, True)
    return cfg


def test_a_file_that_a_tower_began_with(tmp_path: Path) -> None:
    cfg = config(tmp_path / "tower.safetensors")
    assert is_gone(cfg)
    (tmp_path / "tower.safetensors").touch()
    assert not is_gone(cfg)
    own = from_own_source(cfg, tmp_path)
    assert own.model.net.vision.pretrained is False and own.model.net.text == {"width": 8}
    assert cfg.model.net.vision.pretrained == str(tmp_path / "tower.safetensors")


def test_weights_of_a_locked_tower_say_nothing_of_the_rate(tmp_path: Path) -> None:
    assert started_from(config(tmp_path / "x")) == "nothing"
    assert started_from(config(tmp_path / "x", "none")) == started_from(config(tmp_path / "x", "text")) == "towers"
