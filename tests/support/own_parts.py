"""Parts of a user's own, of every kind, as a plugin of one file; and the files of its conf/."""

from pathlib import Path

MODULE = '''
import os
import subprocess
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from alignlab.data.image_text.batches import Pair
from alignlab.inference.backends.scripted import ScriptedBackend
from alignlab.losses.contrastive import InfoNce
from alignlab.methods.clip import ClipMethod
from alignlab.models.clip import Clip

__version__ = "1.2"


class Soft(InfoNce):
    """InfoNCE with a part of the text's own likeness."""

    def __init__(self, *, share: float = 0.25, **settings) -> None:
        super().__init__(**settings)
        self.share = share

    def forward(self, image, text, scale, bias=None, ids=None, gather=True):
        return super().forward(image, text, scale, bias, ids, gather) + self.share * (image - text).square().mean()


class Net(Clip):
    def __init__(self, *, twist: bool = False, **settings) -> None:
        super().__init__(**settings)


class Method(ClipMethod):
    def __init__(self, net, loss, *, flavour: Literal["plain", "sweet"] = "plain", **settings) -> None:
        super().__init__(net, loss, **settings)


class Squares:
    """Squares of a grey each."""

    def __init__(self, image_size: int, *, shades: int = 8) -> None:
        self.image_size, self.shades, self.num_train = image_size, shades, 8 * shades

    def train_pair(self, serial):
        return Pair(self.picture(serial % self.shades, "train"), self.captions_of(serial % self.shades, "train")[0], serial % self.shades)

    def num_pictures(self, split):
        return self.shades

    def picture(self, index, split):
        return np.full((self.image_size, self.image_size, 3), 255 * index // self.shades, dtype=np.uint8)

    def captions_of(self, index, split):
        return [f"grey number {index}"]

    def vocabulary_texts(self):
        return (self.captions_of(index, "train")[0] for index in range(self.shades))

    def held_out_texts(self):
        return iter(())

    def zero_shot_pictures(self):
        return {}

    def foil_sets(self, max_rows=None):
        return {}


class Note(Callback):
    """Writes a file at the end."""

    def __init__(self, name: str = "note.txt") -> None:
        self.name = name

    def on_train_end(self, trainer, pl_module) -> None:
        Path(trainer.default_root_dir, self.name).write_text(f"{trainer.global_step} steps")


def sgd(module: nn.Module, total_steps: int, *, lr: float = 0.1):
    optimizer = torch.optim.SGD(module.parameters(), lr=lr)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer)


def short(prompts, responses):
    return [-float(len(response)) for response in responses]


class Backend(ScriptedBackend):
    def __init__(self, *, mood: Literal["good", "bad"] = "good", **settings) -> None:
        super().__init__(**settings)


class Count:
    """A task: how many prompts there are."""

    needs = "backend"

    def __init__(self, *, least: int = 1) -> None:
        self.least = least

    def run(self, subject, job):
        return {"prompts": float(max(self.least, len(job.items())))}


also = os.system
'''
CONF = {
    "model/loss/soft.yaml": "_target_: my_parts.Soft\n",
    "data/squares.yaml": (
        "_target_: alignlab.data.image_text.modules.PairDataModule\nsource: my_parts.Squares\n"
        "image_size: 16\ncontext_length: 8\nbatch_size: 4\n"
    ),
    "callbacks/note.yaml": "note:\n  _target_: my_parts.Note\n",
    "optim/sgd.yaml": "_target_: torch.optim.SGD\n_partial_: true\n",
    "optim/own.yaml": "_target_: my_parts.sgd\n_partial_: true\n",
    "backend/own.yaml": "_target_: my_parts.Backend\n",
    "task/count.yaml": "_target_: my_parts.Count\n",
}


def write(folder: Path, name: str = "my_parts", conf: bool = True) -> Path:
    """The plugin's file in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.py"
    file.write_text(MODULE)
    for path, text in CONF.items() if conf else ():
        (folder / "conf" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "conf" / path).write_text(text.replace("my_parts", name))
    return file
