"""A run directory of a tiny vision-language model, and scenes as picture files."""

from collections.abc import Callable
from pathlib import Path

from alignlab.configs.command_line import arguments
from alignlab.configs.filling import filled
from alignlab.runs.building import build, load_system
from alignlab.tasks.pictures.subject import VisionLanguage
from tiny_run import REPOSITORY

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

NETS = {
    "albef": ("model.queue_size=64", "model.net.encoder.dropout=0.0"),
    "clip": (),
    "siglip": (),
}


def write_run(folder: Path, model: str, *words: str, source: str = "emoji_scenes") -> Path:
    """A run directory with random weights that lie further apart than at the start of a training."""
    data = (f"data={source}", "data.num_train=64", "data.num_val=12", "data.num_workers=0", *words)
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        cfg = compose("train", overrides=arguments([f"model={model}", *data]))
    torch.manual_seed(0)
    _, system = build(cfg)
    system.configure_model()
    (folder / "checkpoints").mkdir(parents=True)
    torch.save({"state_dict": system.state_dict()}, folder / "checkpoints" / "last.ckpt")
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(filled(cfg), resolve=True).replace("${choice:model}", model))
    return folder


def load_subject(folder: Path) -> VisionLanguage:
    """What the door would hand to a task."""
    return VisionLanguage(*load_system(folder), folder, batch_size=5)


def write_pictures(
    subject: VisionLanguage, folder: Path, place: Callable[[int], str] = lambda n: f"{n:02}"
) -> list[str]:
    """The held-out scenes at the model's size as PNG files, which lose nothing, and their captions."""
    captions = []
    for number in range(12):
        file = folder / f"{place(number)}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture: Image.Image = subject.datamodule.picture(number)
        picture.save(file)
        captions.append(subject.datamodule.caption(number))
    return captions
