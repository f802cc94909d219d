"""CoCa: gradients everywhere, captions against a plain sum over tokens, what a picture and a later word change, learning, validation."""

from functools import partial

from alignlab.methods.coca import Coca, CocaMethod
from alignlab.methods.step import Step
from alignlab.models.vision import vision_transformer
from tiny_training import WORDS, pairs

import torch
import torch.nn.functional as F

SIZES = {"text_width": 16, "heads": 2, "text_layers": 1, "fusion_layers": 2, "max_positions": 8, "embed_dim": 8}


def make(**settings) -> CocaMethod:
    torch.manual_seed(0)
    vision = partial(vision_transformer, image_size=16, patch_size=8, width=16, depth=1, heads=2)
    net = partial(Coca, vision, dropout=0.0, attention_dropout=0.0, **SIZES)
    return CocaMethod(net, vocabulary=WORDS, **settings)


def test_every_parameter_gets_a_gradient() -> None:
    method = make()
    method(pairs()).loss.backward()
    assert [name for name, p in method.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_captions_are_a_mean_over_tokens_that_are_there() -> None:
    method, batch = make(), pairs()
    output = method(batch)
    total, count = 0.0, 0
    for image, ids, mask in zip(batch.image, batch.ids, batch.mask, strict=True):
        ids, states = ids[mask][None], method.net.image_states(method.net.encode_image(image[None]).tokens)
        tokens = method.net.text_tokens(ids, torch.ones_like(ids, dtype=torch.bool))
        for cut in range(1, ids.shape[1]):  # each word from those before it alone
            there = torch.ones(1, cut, dtype=torch.bool)
            where = {"masked_rows": slice(0, 1), "masked_position": torch.tensor([cut - 1])}
            hidden = method.net.fuse(tokens[:, :cut], there, states, **where).masked
            total += F.cross_entropy(method.net.language_logits(hidden), ids[:, cut])
            count += 1
    torch.testing.assert_close(output.metrics["caption_loss"], total / count)
    torch.testing.assert_close(output.loss, output.metrics["contrastive_loss"] + 2 * total / count)


def test_the_picture_matters_to_the_caption_and_padding_to_nothing() -> None:
    method, batch = make(), pairs()
    first = method(batch).metrics
    other = method(batch._replace(image=batch.image.flip(0))).metrics
    assert not torch.allclose(first["caption_loss"], other["caption_loss"])
    padded = method(batch._replace(ids=torch.where(batch.mask, batch.ids, 9))).metrics
    torch.testing.assert_close(padded, first)


def test_accumulated_captions_are_those_of_the_whole_step() -> None:
    method, batch = make(), pairs()
    halves = [type(batch)(*(x[part] for x in batch[:5])) for part in (slice(0, 4), slice(4, 8))]
    found = [method(half, Step(0, i, 2, lambda: halves)).metrics["caption_loss"] for i, half in enumerate(halves)]
    torch.testing.assert_close(sum(found), method(batch).metrics["caption_loss"])


def test_it_learns_and_validation_changes_nothing() -> None:
    method, batch = make(), pairs()
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
    first = method(batch).loss.item()
    for number in range(60):
        optimizer.zero_grad()
        method(batch, Step(number)).loss.backward()
        optimizer.step()
        method.after_step(Step(number))
    before = {name: value.clone() for name, value in method.state_dict().items()}
    found = method.validate(batch)
    assert found["loss"] < 0.3 * first
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())
