"""Two-tower net: unit vectors, gradients, freezing, temperature."""

from functools import partial

from alignlab.models.clip import Clip
from alignlab.models.text import TextTower
from alignlab.models.vision import vision_transformer

import pytest
import torch


def net(**settings) -> Clip:
    torch.manual_seed(0)
    vision = partial(
        vision_transformer,
        image_size=16,
        patch_size=8,
        width=16,
        depth=2,
        heads=2,
        patch_dropout=settings.pop("patch_dropout", 0.0),
    )
    text = partial(TextTower, context_length=6, width=24, depth=2, heads=2)
    return Clip(vision, text, vocab_size=20, embed_dim=8, **settings)


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(3, 3, 16, 16), torch.randint(1, 20, (3, 6)), torch.ones(3, 6, dtype=torch.bool)


def test_embeddings_have_length_one_and_every_parameter_gets_a_gradient():
    model = net(logit_bias=-10.0)
    pairs = model(*inputs())
    for vectors in (pairs.image, pairs.text):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3), rtol=0, atol=1e-6)
    (pairs.scale * pairs.image @ pairs.text.T + pairs.bias).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    assert all(p.ndim > 0 for p in model.parameters())  # sharding refuses 0-d parameters


@pytest.mark.parametrize(("freeze", "still"), [("image", "vision."), ("text", "text.")])
def test_frozen_tower_stays_as_it_is_and_in_eval_mode(freeze, still):
    model = net(freeze=freeze, patch_dropout=0.5).train()
    assert model.training and not model.frozen.training
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == {
        name for name, _ in model.named_parameters() if name.startswith(still)
    }
    image, *_ = inputs()
    same = model.encode_image(image).equal(model.encode_image(image))
    assert same == (freeze == "image")  # its patch dropout is off
    assert set(net().state_dict()) == set(model.state_dict())


def test_temperature_starts_and_is_clamped_where_asked():
    model = net(temperature=0.07, max_scale=50.0)
    torch.testing.assert_close(model.scale, torch.tensor([1 / 0.07]))
    for value, wanted in ((9.0, 50.0), (-2.0, 1.0)):
        model.logit_scale.data.fill_(value)
        model.clamp_temperature()
        torch.testing.assert_close(model.scale, torch.tensor([wanted]))
    with pytest.raises(ValueError, match=r"temperature=0.001"):
        net(temperature=0.001)
    with pytest.raises(ValueError, match="freeze=both"):
        net(freeze="both")


def test_a_checkpoint_that_calls_the_scale_temperature_is_read():
    model = net()
    state = net(temperature=0.01).state_dict()
    state["temperature"] = state.pop("logit_scale")
    model.load_state_dict(state)
    torch.testing.assert_close(model.temperature, torch.tensor([0.01]))
