"""Augmentations are functions of their random numbers, and leave left and right and the colours alone."""

import random

from alignlab.data.image_text.augmentation import _operations, random_augment, random_resized_crop

import numpy as np
import pytest
from PIL import Image

PIXELS = np.random.Generator(np.random.PCG64(0)).integers(0, 255, (40, 60, 3), dtype=np.uint8)


def test_the_same_random_numbers_give_the_same_picture():
    picture = Image.fromarray(PIXELS)

    def change(seed):
        crop = random_resized_crop(picture, 24, (0.3, 1.0), random.Random(seed))
        return np.asarray(random_augment(crop, 2, 7, random.Random(seed)))

    assert np.array_equal(change(1), change(1)) and change(1).shape == (24, 24, 3)
    assert len({change(seed).tobytes() for seed in range(20)}) > 15


def test_crops_stay_inside_and_keep_the_share_of_the_area():
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 200, dtype=np.uint8)[None, :, None], (200, 1, 3)))
    spans = []
    for seed in range(200):
        crop = np.asarray(random_resized_crop(ramp, 50, (0.25, 0.25), random.Random(seed)))[25, :, 0]
        assert np.all(np.diff(crop.astype(int)) >= 0)  # never mirrored
        spans.append((int(crop[-1]) - int(crop[0])) / 255)
    assert 0.4 < min(spans) and max(spans) < 0.61 and abs(np.mean(spans) - 0.5) < 0.03  # 0.5 x sqrt(3/4 .. 4/3)
    assert random_resized_crop(Image.new("RGB", (500, 5)), 16, (0.5, 1.0), random.Random(0)).size == (16, 16)


@pytest.mark.parametrize("number", range(10))
def test_each_operation_keeps_size_and_hue(number):
    grey = Image.fromarray(np.repeat(PIXELS[..., :1], 3, -1))
    changed = np.asarray(_operations(0.7, -1)[number](grey)).astype(int)
    assert changed.shape == (40, 60, 3)
    assert np.abs(changed - changed[..., :1]).max() <= 1  # grey stays grey
    assert number == 0 or not np.array_equal(changed, np.asarray(grey))


def test_zero_operations_change_nothing():
    assert np.array_equal(random_augment(Image.fromarray(PIXELS), 0, 7, random.Random(0)), PIXELS)
