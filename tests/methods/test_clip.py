"""CLIP: one step, determinism, temperature, learning, validation, bad input; both losses."""

from functools import partial

from alignlab.losses.contrastive import InfoNce, SigLip
from alignlab.models.clip import Clip
from alignlab.models.text import TextTower
from alignlab.models.vision import vision_transformer
from alignlab.optim.adamw import adamw
from alignlab.systems.method_system import MethodSystem
from recorder import fit
from tiny_training import clip_system, pairs

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

KINDS = {"clip": (InfoNce, {}), "siglip": (SigLip, {"logit_bias": -10.0, "temperature": 0.1})}


def make_system(kind: str = "clip", lr: float = 3e-3, **settings) -> MethodSystem:
    torch.manual_seed(0)
    loss, extra = KINDS[kind]
    vision = partial(vision_transformer, image_size=16, patch_size=8, width=32, depth=2, heads=2)
    text = partial(TextTower, context_length=7, width=32, depth=2, heads=2)
    net = partial(Clip, vision, text, embed_dim=16, **extra, **settings)
    return clip_system(net, loss(), partial(adamw, lr=lr))


@pytest.mark.parametrize("kind", KINDS)
def test_overfits_one_batch_and_repeats_bit_for_bit(kind):
    _, losses = fit(make_system(kind), 40, [pairs()])
    assert losses[-1] < 0.1 * losses[0]
    _, again = fit(make_system(kind), 5, [pairs()])
    _, once_more = fit(make_system(kind), 5, [pairs()])
    assert again == once_more


def test_logs_loss_and_temperature_and_clamps_after_the_step():
    system = make_system(lr=1e-4)
    system.configure_model()
    system.net.logit_scale.data.fill_(9.0)
    trainer, losses = fit(system, 1, [pairs()])
    assert set(trainer.callback_metrics) == {"train/loss", "train/temperature"}
    assert trainer.callback_metrics["train/loss"] == pytest.approx(losses[-1])
    assert system.net.logit_scale.item() == pytest.approx(system.net.max_log_scale)


def test_validation_changes_nothing_and_skips_a_batch_of_one():
    system = make_system()
    system.configure_model()
    before = {name: value.clone() for name, value in system.state_dict().items()}
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    metrics = trainer.validate(system, DataLoader([pairs(), pairs(1, 1)], batch_size=None), verbose=False)[0]
    expected = system.method.loss(*system.net(*pairs()[:3]))
    assert metrics["val/loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert all(torch.equal(before[name], value) for name, value in system.state_dict().items())


def test_bf16_and_frozen_tower_train():
    system = make_system(freeze="image")
    fit(system, 3, [pairs()], precision="bf16-mixed")
    frozen = {id(p) for p in system.net.vision.parameters()}
    assert all((p.grad is None) == (id(p) in frozen) for p in system.net.parameters())


def test_the_net_is_built_once():
    system = make_system()
    system.configure_model()
    net = system.net
    system.configure_model()
    assert system.net is net


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_one_is_refused(kind):
    with pytest.raises(ValueError, match=r"batch_size=1"):
        fit(make_system(kind), 1, [pairs(1)])


def test_encodings_are_unit_vectors_without_tokens():
    system, batch = make_system(), pairs()
    system.configure_model()
    image, text = system.encode_image(batch.image), system.encode_text(batch.ids, batch.mask)
    assert image.features.shape == text.features.shape == (8, 16)
    assert image.tokens is None and text.tokens is None
