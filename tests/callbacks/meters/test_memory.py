"""What lies in memory after a step equals the arithmetic."""

from functools import partial

from alignlab.callbacks.meters.memory import MemoryMeter, tensor_bytes
from alignlab.cost.memory import counts, training_memory
from alignlab.losses.contrastive import InfoNce
from alignlab.models.clip import Clip
from alignlab.models.text import TextTower
from alignlab.models.vision import vision_transformer
from alignlab.optim.adamw import adamw
from recorder import fit
from tiny_training import clip_system, pairs

import lightning
import pytest
import torch


class Spike(lightning.Callback):
    """Holds 256 MB for a moment."""

    def on_train_batch_start(self, *_):
        torch.ones(64_000_000)


def test_tensors_after_a_step_are_what_the_arithmetic_adds_up():
    vision = partial(vision_transformer, image_size=16, patch_size=8, width=128, depth=3, heads=2)
    text = partial(TextTower, context_length=7, width=128, depth=3, heads=2)
    before = tensor_bytes()
    system = clip_system(partial(Clip, vision, text, embed_dim=64), InfoNce(), partial(adamw, lr=1e-3))
    trainer, _ = fit(system, 3, [pairs(4)], more_callbacks=[Spike(), MemoryMeter(at_step=2)])
    found = float(trainer.callback_metrics["memory/tensor_bytes"]) - before
    assert found == pytest.approx(training_memory(counts(system.net), "none").total, rel=0.02)  # and the batch
    assert float(trainer.callback_metrics["memory/peak_bytes"]) > 250e6


def test_views_are_counted_once():
    before = tensor_bytes()
    x = torch.zeros(1000)
    views = x[:500], x.view(10, 100)
    assert tensor_bytes() - before == 4000 and len(views) == 2
