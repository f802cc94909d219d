"""Parameter groups and schedules."""

import math

import pytest
import torch
from torch import nn

from alignlab.models.vision import vision_transformer
from alignlab.optim import adamw, learning_rate, parameter_groups


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.vision = vision_transformer(image_size=16, patch_size=8, width=8, depth=2, heads=2)
        self.embedding = nn.Embedding(5, 8)
        self.head = nn.Linear(8, 5)
        self.head.weight = self.embedding.weight  # tied
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.temperature = nn.Parameter(torch.ones(1))


def decayed(net: nn.Module, **settings) -> set[str]:
    names = {id(p): name for name, p in net.named_parameters()}
    groups = parameter_groups(net, lr=1.0, weight_decay=0.1, **settings)
    assert sum(len(g["params"]) for g in groups) == sum(p.requires_grad for p in net.parameters())
    return {names[id(p)] for g in groups if g["weight_decay"] for p in g["params"]}


def test_only_weights_of_linear_and_convolution_layers_are_decayed():
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    weights = {f"vision.trunk.blocks.{i}.{layer}.weight" for i in (0, 1) for layer in layers}
    assert decayed(Net()) == weights | {"vision.trunk.patch_embed.proj.weight"}


def test_reference_decays_tokens_embeddings_and_temperature_too():
    extra = decayed(Net(), decay="reference") - decayed(Net())
    assert extra == {"vision.trunk.cls_token", "vision.trunk.pos_embed", "embedding.weight", "temperature"}


def test_layer_decay_lowers_the_rate_towards_the_input():
    net = Net()
    names = {id(p): name for name, p in net.named_parameters()}
    groups = parameter_groups(net, lr=1.0, weight_decay=0.1, layer_decay=0.5)
    rate = {names[id(p)]: g["lr"] for g in groups for p in g["params"]}
    assert rate["vision.trunk.pos_embed"] == rate["vision.trunk.patch_embed.proj.weight"] == 0.125
    assert rate["vision.trunk.blocks.0.norm1.bias"] == 0.25 and rate["vision.trunk.blocks.1.attn.qkv.weight"] == 0.5
    assert rate["vision.trunk.norm.weight"] == rate["temperature"] == 1.0


def test_schedules_by_hand():
    cosine = learning_rate(lr=1.0, total_steps=12, warmup_steps=2, warmup_lr=0.5, min_lr=0.1)
    assert [round(cosine(s), 6) for s in (0, 1, 2, 7, 12, 20)] == [0.75, 1.0, 1.0, 0.55, 0.1, 0.1]
    linear = learning_rate(lr=2.0, total_steps=10, schedule="linear")
    assert [linear(s) for s in (0, 5, 10)] == [2.0, 1.0, 0.0]
    assert learning_rate(lr=2.0, total_steps=math.inf, schedule="constant")(10**6) == 2.0


def test_the_optimizer_follows_the_schedule_and_is_fused():
    net = Net()
    out = adamw(net, lr=0.1, total_steps=4, warmup_steps=1, layer_decay=0.5)
    optimizer, scheduler = out["optimizer"], out["lr_scheduler"]["scheduler"]
    assert out["lr_scheduler"]["interval"] == "step" and optimizer.defaults["fused"]
    top = max(range(len(optimizer.param_groups)), key=lambda i: optimizer.param_groups[i]["lr"])
    seen = []
    for _ in range(4):
        seen.append(optimizer.param_groups[top]["lr"])
        net.vision.pooled(torch.randn(1, 3, 16, 16)).sum().backward()
        optimizer.step()
        scheduler.step()
    assert seen == pytest.approx([0.1, 0.1, 0.075, 0.025])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.0}, "optim.lr=0.0"),
        ({"lr": 0.1, "min_lr": 0.2}, "optim.min_lr=0.2"),
        ({"lr": 0.1, "warmup_steps": -1}, "optim.warmup_steps=-1"),
        ({"lr": 0.1, "total_steps": math.inf}, "trainer.max_steps"),
        ({"lr": 0.1, "schedule": "step"}, "optim.schedule=step"),
        ({"lr": 0.1, "decay": "some"}, "optim.decay=some"),
        ({"lr": 0.1, "weight_decay": -1.0}, "optim.weight_decay=-1.0"),
        ({"lr": 0.1, "layer_decay": 0.0}, "optim.layer_decay=0.0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        adamw(nn.Linear(2, 2), **{"total_steps": 10, **settings})


def test_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="every parameter is frozen"):
        adamw(nn.Linear(2, 2).requires_grad_(False), lr=0.1, total_steps=1)
