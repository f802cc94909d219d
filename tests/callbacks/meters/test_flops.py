"""FLOPs a sample and MFU in a run: the same with micro-batches, checkpointing or compilation."""

from functools import partial

from alignlab.callbacks.meters.flops import Flops
from alignlab.callbacks.meters.throughput import Throughput
from alignlab.losses.contrastive import InfoNce
from alignlab.models.clip import Clip
from alignlab.models.text import TextTower
from alignlab.models.vision import vision_transformer
from alignlab.optim.adamw import adamw
from recorder import fit
from tiny_training import clip_system, pairs

import pytest
import torch


def run(**settings) -> dict[str, float]:
    torch.manual_seed(0)
    vision = partial(vision_transformer, image_size=16, patch_size=8, width=16, depth=3, heads=2)
    text = partial(TextTower, context_length=7, width=16, depth=2, heads=2)
    net = partial(Clip, vision, text, embed_dim=8)
    system = clip_system(net, InfoNce(), partial(adamw, lr=1e-3), **settings)
    callbacks = [Throughput(warmup_steps=1), Flops(peak=1e9)]
    trainer, _ = fit(system, 4, [pairs(8)], log_every_n_steps=2, more_callbacks=callbacks)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_mfu_is_rate_times_flops_over_peak():
    metrics = run()
    wanted = metrics["train/samples_per_second"] * metrics["train/gflops_per_sample"]
    assert metrics["train/mfu"] == pytest.approx(wanted, rel=1e-5)
    assert metrics["train/gflops_per_sample"] > 3e-4


@pytest.mark.parametrize(
    "settings",
    [{"micro_batch_size": 3}, {"gradient_checkpointing": True}, {"compile": {"backend": "eager"}}],
    ids=str,
)
def test_flops_are_those_of_the_model(settings):
    wanted = run()["train/gflops_per_sample"]
    assert run(**settings)["train/gflops_per_sample"] == pytest.approx(wanted, rel=1e-6)


def test_it_needs_the_throughput():
    system = clip_system(None, InfoNce(), None)
    trainer = type("Trainer", (), {"callbacks": [Flops()]})()
    with pytest.raises(ValueError, match=r"callback throughput"):
        trainer.callbacks[0].on_train_start(trainer, system)
