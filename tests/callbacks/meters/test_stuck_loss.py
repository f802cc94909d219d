"""A loss that stays where a blind model stands is said once, with its causes; one that learns isn't."""

import logging
import math
from functools import partial

from alignlab.callbacks.meters.stuck_loss import StuckLoss
from alignlab.losses.contrastive import InfoNce, SigLip
from alignlab.methods.parts.blind import contrast, matching, sigmoid_contrast
from alignlab.models.albef import Albef, AlbefEncoder
from alignlab.models.clip import Clip
from alignlab.models.text import TextTower
from alignlab.models.vision import vision_transformer
from tiny_training import albef_system, clip_system, pairs

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

VISION = partial(vision_transformer, image_size=16, patch_size=8, width=16, depth=1, heads=2)


def albef():
    sizes = {"text_width": 16, "heads": 2, "text_layers": 1, "fusion_layers": 1, "max_positions": 12, "embed_dim": 8}
    return albef_system(partial(Albef, partial(AlbefEncoder, VISION, **sizes)), None, queue_size=4, momentum=0.0)


def clip(loss=None):
    text = partial(TextTower, context_length=7, width=16, depth=1, heads=2)
    return clip_system(partial(Clip, VISION, text, embed_dim=8), loss or InfoNce(), None)


@pytest.fixture
def fit(caplog):
    """Trains on a batch of 4 again and again, at a rate of 0 unless told otherwise, and gives what was said."""

    def run(system, max_steps, lr=0.0, accumulate=1, **settings):
        system.optim = lambda net, total_steps, **_: {"optimizer": torch.optim.Adam(net.parameters(), lr=lr)}
        trainer = pl.Trainer(
            max_steps=max_steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0, use_distributed_sampler=False,
            accumulate_grad_batches=accumulate, callbacks=[StuckLoss(**settings)], devices=1,
        )  # fmt: skip
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            trainer.fit(system, DataLoader([pairs(4)] * 2, batch_size=None))
        return [record.getMessage() for record in caplog.records if record.name.endswith("stuck_loss")]

    return run


def blinded(system):
    """Every picture and caption alike: the projections give nothing but their biases, and matches are as likely as they are."""
    system.configure_model()
    for name, parameter in system.net.named_parameters():
        if name.endswith(("projection.weight", "matching_head.weight")):
            torch.nn.init.zeros_(parameter)
        if name == "matching_head.bias":
            parameter.data = torch.tensor([2.0, 1.0]).log()
    return system


def test_blind_losses_are_those_of_constant_answers():
    """Against the losses themselves, of features that are all the same and at the best constant logit."""
    same, scale = torch.nn.functional.normalize(torch.ones(6, 4), dim=1), torch.ones(1)
    assert InfoNce()(same, same, scale).item() == pytest.approx(contrast(6).loss)
    bias = torch.tensor([math.log(1 / 5) - 1])  # on top of a cosine of 1: sigmoid = 1 / 6
    assert SigLip()(same, same, scale, bias).item() == pytest.approx(sigmoid_contrast(6).loss, rel=1e-5)
    label = torch.tensor([1.0] * 3 + [0.0] * 9)
    constant = torch.full((12,), math.log(1 / 3))
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(constant, label).item()
    assert matching(3, 9).loss == pytest.approx(wanted, rel=1e-5) and "75.0%" in matching(3, 9).stands_for


def test_a_stuck_contrast_and_itm_are_said_once_with_three_causes(fit):
    said = sorted(fit(blinded(albef()), 6, steps=2))
    assert [message.split()[0] for message in said] == ["train/itc_loss", "train/itm_loss"]
    for message, where in zip(said, ("ln(8)", "the share of negatives, 66.7%"), strict=True):
        assert f"stays at {where}" in message and all(f"({n})" in message for n in (1, 2, 3))


def test_the_window_counts_optimizer_steps(fit):
    said = fit(blinded(clip()), 3, accumulate=2, steps=2)
    assert len(said) == 1 and "to step 2" in said[0] and "ln(4)" in said[0]
    assert not fit(blinded(clip()), 3, steps=4)


def test_what_learns_is_not_said(fit):
    torch.manual_seed(0)
    assert not fit(clip(), 30, lr=1e-2, steps=15)


def test_impossible_settings():
    with pytest.raises(ValueError, match="steps=0 must be at least 1"):
        StuckLoss(steps=0)
    with pytest.raises(ValueError, match="margin=1"):
        StuckLoss(margin=1)
