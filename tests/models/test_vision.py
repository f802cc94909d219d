"""Vision tower: pooled output, position embeddings, patch dropout, checkpointing, towers by name, bad sizes."""

from alignlab.models.vision import resize_position_embedding, vision_transformer

import pytest
import torch
import torch.nn.functional as F

SIZES = {"image_size": 32, "patch_size": 8, "width": 48, "depth": 3, "heads": 4}


def tower(**settings):
    torch.manual_seed(0)
    return vision_transformer(**{**SIZES, **settings})


@pytest.mark.parametrize("settings", [{}, {"stem": "conv"}, {"pre_norm": True, "activation": "quick_gelu"}], ids=str)
def test_pooled_is_the_class_token_of_all_tokens_with_equal_gradients(settings):
    net, image = tower(**settings).double(), torch.randn(3, 3, 32, 32, dtype=torch.float64)
    tokens, direction = net.tokens(image), torch.randn(3, 48)
    assert {m.eps for m in net.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-6}
    assert tokens.shape == (3, 17, 48) and net.grid == (4, 4) and net.width == 48
    torch.testing.assert_close(tokens, net.trunk.forward_features(image), rtol=0, atol=1e-12)  # timm's own computation
    (tokens[:, 0] * direction).sum().backward()
    whole = {name: p.grad.clone() for name, p in net.named_parameters()}
    net.zero_grad()
    pooled = net.pooled(image)
    (pooled * direction).sum().backward()
    torch.testing.assert_close(pooled, tokens[:, 0], rtol=0, atol=1e-12)
    for name, parameter in net.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
        torch.testing.assert_close(
            parameter.grad, whole[name], rtol=1e-9, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_attention_pooling_trains_every_parameter():
    net = tower(pool="map")
    (net.pooled(torch.randn(2, 3, 32, 32)) * torch.randn(48)).sum().backward()
    assert net.tokens(torch.randn(2, 3, 32, 32)).shape == (2, 16, 48)
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_checkpoint_of_another_size_loads_with_resized_positions():
    small, large = tower(), tower(image_size=48)
    large.load_state_dict(small.state_dict())
    old, new = small.trunk.pos_embed, large.trunk.pos_embed
    assert torch.equal(old[:, 0], new[:, 0])
    grid = F.interpolate(
        old[:, 1:].reshape(1, 4, 4, 48).permute(0, 3, 1, 2), (6, 6), mode="bicubic", align_corners=False
    )
    assert torch.equal(new[:, 1:], grid.permute(0, 2, 3, 1).reshape(1, 36, 48))
    with pytest.raises(ValueError, match="not a square"):
        resize_position_embedding(torch.randn(1, 8, 4), (2, 2))


def test_patch_dropout_only_in_training():
    plain, dropping = tower(), tower(patch_dropout=0.5)
    image = torch.randn(2, 3, 32, 32)
    assert dropping.tokens(image).shape == (2, 9, 48)
    assert torch.equal(dropping.eval().pooled(image), plain.eval().pooled(image))


def test_gradient_checkpointing_changes_nothing():
    image, direction, gradients = torch.randn(2, 3, 32, 32), torch.randn(48), []
    for on in (False, True):
        net = tower(gradient_checkpointing=on)
        (net.pooled(image) * direction).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
    assert torch.equal(*gradients)


@pytest.mark.parametrize(("name", "tokens", "width"), [("vit_tiny_patch16_224", 5, 192), ("resnet10t", 1, 512)])
def test_towers_by_name(name, tokens, width):
    net = vision_transformer(name=name, image_size=32).eval()
    image = torch.randn(2, 3, 32, 32)
    assert net.tokens(image).shape == (2, tokens, width)
    assert net.pooled(image).shape == (2, net.width) == (2, width)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 30}, "multiple of patch_size=8"),
        ({"heads": 5}, "multiple of heads=5"),
        ({"stem": "conv", "image_size": 36, "patch_size": 12}, "power of two"),
        ({"patch_dropout": 1.0}, "patch_dropout=1.0"),
        ({"name": "vit_tiny_patch16_225"}, "vit_tiny_patch16_224"),
        ({"pretrained": True}, "needs `name`"),
    ],
)
def test_bad_sizes_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tower(**settings)
