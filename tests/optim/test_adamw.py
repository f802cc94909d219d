"""Schedules, and AdamW that follows them."""

import math

from alignlab.models.vision import vision_transformer
from alignlab.optim.adamw import adamw, learning_rate

import pytest
import torch
from torch import nn


def test_schedules_by_hand():
    cosine = learning_rate(lr=1.0, total_steps=12, warmup_steps=2, warmup_lr=0.5, min_lr=0.1)
    assert [round(cosine(s), 6) for s in (0, 1, 2, 7, 12, 20)] == [0.75, 1.0, 1.0, 0.55, 0.1, 0.1]
    linear = learning_rate(lr=2.0, total_steps=10, schedule="linear")
    assert [linear(s) for s in (0, 5, 10)] == [2.0, 1.0, 0.0]
    assert learning_rate(lr=2.0, total_steps=math.inf, schedule="constant")(10**6) == 2.0
    endless = learning_rate(lr=2.0, total_steps=math.inf, warmup_steps=4, schedule="inverse_sqrt", min_lr=0.5)
    assert [endless(s) for s in (0, 3, 15, 63, 10**6)] == [0.5, 2.0, 1.0, 0.5, 0.5]
    stable = learning_rate(lr=1.0, total_steps=20, warmup_steps=2, schedule="warmup_stable_decay", decay_fraction=0.25)
    assert [round(stable(s), 6) for s in (0, 1, 2, 14, 15, 16, 19, 20)] == [0.5, 1.0, 1.0, 1.0, 1.0, 0.8, 0.2, 0.0]


def test_the_optimizer_follows_the_schedule_and_is_fused():
    net = vision_transformer(image_size=16, patch_size=8, width=8, depth=2, heads=2)
    out = adamw(net, lr=0.1, total_steps=4, warmup_steps=1, layer_decay=0.5)
    optimizer, scheduler = out["optimizer"], out["lr_scheduler"]["scheduler"]
    assert out["lr_scheduler"]["interval"] == "step" and optimizer.defaults["fused"]
    top = max(range(len(optimizer.param_groups)), key=lambda i: optimizer.param_groups[i]["lr"])
    seen = []
    for _ in range(4):
        seen.append(optimizer.param_groups[top]["lr"])
        net.pooled(torch.randn(1, 3, 16, 16)).sum().backward()
        optimizer.step()
        scheduler.step()
    assert seen == pytest.approx([0.1, 0.1, 0.075, 0.025])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.0}, "lr=0.0"),
        ({"lr": 0.1, "min_lr": 0.2}, "min_lr=0.2"),
        ({"lr": 0.1, "warmup_steps": -1}, "warmup_steps=-1"),
        ({"lr": 0.1, "total_steps": math.inf}, "max_steps or max_epochs"),
        ({"lr": 0.1, "schedule": "step"}, "schedule=step"),
        ({"lr": 0.1, "total_steps": math.inf, "schedule": "warmup_stable_decay"}, "needs an end"),
        ({"lr": 0.1, "decay_fraction": 0.0}, "decay_fraction=0.0"),
        ({"lr": 0.1, "layer_decay": 0.0}, "layer_decay=0.0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        adamw(nn.Linear(2, 2), **{"total_steps": 10, **settings})
