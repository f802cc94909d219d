"""What you would notice last: `python -m pytest`."""

import subprocess
import sys

import torch
from my_project.loss import Smoothed
from my_project.pictures import SHAPES, Shapes
from torch.nn.functional import normalize


def test_the_loss_is_least_for_the_right_pairs_and_has_a_gradient():
    image = normalize(torch.randn(6, 8), dim=-1).requires_grad_()
    scale = torch.full((1,), 10.0)
    right = Smoothed()(image, image.detach(), scale)
    assert right < Smoothed()(image, image.detach().roll(1, 0), scale)
    right.backward()
    assert image.grad.abs().sum() > 0


def test_pictures_are_what_their_captions_say_and_come_again():
    source = Shapes(image_size=32)
    first, again = source.train_pair(5), source.train_pair(5)
    assert first.picture.shape == (32, 32, 3) and (first.picture == again.picture).all()
    assert first.caption.split()[-1] in SHAPES
    assert (source.picture(0, "val") == (255, 0, 0)).all(-1).any(), "the red circle has red in it"


def test_the_experiment_composes():
    words = ["train", "plugins=my_project", "experiment=my_project", "--cfg", "job"]
    done = subprocess.run([sys.executable, "-m", "alignlab.cli", *words], capture_output=True, text=True)
    assert done.returncode == 0 and "smoothing: 0.1" in done.stdout, done.stderr
