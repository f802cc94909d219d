"""Which parameters decay, and which learn more slowly: by kind, by layer, by name; in every model."""

from functools import partial

from alignlab.models.albef import Albef, AlbefEncoder
from alignlab.models.clip import Clip
from alignlab.models.text import TextTower
from alignlab.models.vision import vision_transformer
from alignlab.optim.muon import muon
from alignlab.optim.parameter_groups import parameter_groups

import pytest
import torch
from torch import nn

VISION = partial(vision_transformer, image_size=16, patch_size=8, width=16, depth=2, heads=2)
TEXT = partial(TextTower, context_length=7, width=16, depth=2, heads=2)
ENCODER = partial(AlbefEncoder, VISION, text_width=16, heads=2, text_layers=2, fusion_layers=3, embed_dim=8)
MODELS = {
    "clip": partial(Clip, VISION, TEXT, vocab_size=9),
    "siglip with attention pooling": partial(Clip, partial(VISION, pool="map"), TEXT, vocab_size=9, logit_bias=-10.0),
    "clip with a convolutional stem": partial(Clip, partial(VISION, stem="conv", pre_norm=True), TEXT, vocab_size=9),
    "clip with a swin transformer": partial(
        Clip, partial(VISION, name="swin_tiny_patch4_window7_224", image_size=224), TEXT, vocab_size=9
    ),
    "albef": partial(Albef, ENCODER, vocab_size=9),
}


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


def rates(net: nn.Module, **settings) -> dict[str, float]:
    names = {id(p): name for name, p in net.named_parameters()}
    groups = parameter_groups(net, lr=1.0, weight_decay=0.1, **settings)
    return {names[id(p)]: g["lr"] for g in groups for p in g["params"]}


def test_layer_decay_lowers_the_rate_towards_the_input():
    rate = rates(Net(), layer_decay=0.5)
    assert rate["vision.trunk.pos_embed"] == rate["vision.trunk.patch_embed.proj.weight"] == 0.125
    assert rate["vision.trunk.blocks.0.norm1.bias"] == 0.25 and rate["vision.trunk.blocks.1.attn.qkv.weight"] == 0.5
    assert rate["vision.trunk.norm.weight"] == rate["temperature"] == 1.0


@pytest.mark.parametrize("model", MODELS)
def test_every_model_decays_the_weights_of_its_linear_and_convolution_layers(model):
    net = MODELS[model]()
    layers = (nn.Linear, nn.Conv2d)
    assert decayed(net) == {f"{n}.weight" for n, m in net.named_modules() if isinstance(m, layers)}


def test_albef_text_and_fusion_are_one_tower():
    rate = rates(Albef(ENCODER, vocab_size=9), layer_decay=0.5)
    layers = ("text.0", "text.1", "fusion.0", "fusion.1", "fusion.2")
    first = [next(r for name, r in rate.items() if name.startswith(f"encoder.{layer}.")) for layer in layers]
    assert first == [2.0**-5, 2.0**-4, 2.0**-3, 2.0**-2, 2.0**-1]
    assert rate["encoder.embeddings.word.weight"] == rate["encoder.embeddings.norm.weight"] == 2.0**-6
    assert rate["encoder.vision.trunk.blocks.1.norm1.weight"] == 0.5 and rate["encoder.vision.trunk.pos_embed"] == 0.125
    tops = (
        "encoder.text_projection.weight",
        "encoder.language_head.dense.weight",
        "matching_head.weight",
        "temperature",
    )
    assert all(rate[name] == 1.0 for name in tops)


def test_multipliers_go_by_the_longest_name_and_with_layer_decay():
    rate = rates(Net(), lr_multipliers={"net.vision": 0.1, "vision.trunk.blocks.1": 3.0}, layer_decay=0.5)
    assert rate["vision.trunk.norm.weight"] == 0.1 and rate["temperature"] == 1.0
    assert rate["vision.trunk.blocks.1.norm1.bias"] == 1.5
    assert rate["vision.trunk.blocks.0.norm1.bias"] == pytest.approx(0.025)


def test_muon_has_the_same_multipliers():
    out = muon(MODELS["clip"](), lr=1.0, total_steps=4, other_lr_ratio=0.5, lr_multipliers={"text": 0.1})
    assert sorted({group["initial_lr"] for group in out["optimizer"].param_groups}) == [0.05, 0.1, 0.5, 1.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay": "some"}, "decay=some"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0"),
        ({"layer_decay": 0.0}, "layer_decay=0.0"),
        ({"lr_multipliers": {"net.vison": 0.1}}, "net.vison is no part of the net; did you mean vision?"),
        ({"lr_multipliers": {"vision.tru": 0.1}}, "vision.tru is no part"),
        ({"lr_multipliers": {"vision": 0.0}}, "vision=0.0 must be positive"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        parameter_groups(Net(), **{"lr": 0.1, "weight_decay": 0.0, **settings})


def test_nothing_to_train_and_nothing_to_count_are_refused():
    with pytest.raises(ValueError, match="every parameter is frozen"):
        parameter_groups(nn.Linear(2, 2).requires_grad_(False), lr=0.1, weight_decay=0.0)
    with pytest.raises(ValueError, match="Linear has no list of layers"):
        parameter_groups(nn.Linear(2, 2), lr=0.1, weight_decay=0.0, layer_decay=0.5)
