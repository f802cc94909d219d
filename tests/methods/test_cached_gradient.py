"""Micro-batches equal the whole batch: loss, gradient, training with clipping, accumulation and schedule, random numbers, bfloat16."""

from functools import partial

from alignlab.losses.contrastive import InfoNce, PairIds, SigLip
from alignlab.methods.clip import ClipMethod
from alignlab.methods.parts.cached_gradient import cached_gradient_loss, check_rows_are_independent
from alignlab.models.clip import Clip
from alignlab.models.text import TextTower
from alignlab.models.vision import vision_transformer
from alignlab.optim.adamw import adamw
from alignlab.systems.method_system import MethodSystem
from alignlab.types.pairs import PairBatch
from recorder import fit
from tiny_training import WORDS, clip_system, pairs

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

LOSSES = {"info_nce": InfoNce(), "siglip": SigLip(chunk_size=5)}


def make_net(kind: str = "info_nce", patch_dropout: float = 0.0, **settings) -> Clip:
    torch.manual_seed(0)
    bias = {"logit_bias": -3.0} if kind == "siglip" else {}
    vision = partial(
        vision_transformer, image_size=16, patch_size=4, width=16, depth=2, heads=2, patch_dropout=patch_dropout
    )
    text = partial(TextTower, context_length=7, width=16, depth=2, heads=2)
    return Clip(vision, text, vocab_size=WORDS.size, embed_dim=8, **bias, **settings)


def make_system(kind: str, micro_batch_size: int | None, **settings) -> MethodSystem:
    optim = partial(adamw, lr=1e-2, warmup_steps=2, weight_decay=0.1)
    net = partial(make_net, kind, **settings)
    return clip_system(lambda vocab_size: net(), LOSSES[kind], optim, micro_batch_size=micro_batch_size)


def split(batch: PairBatch, size: int) -> list[PairBatch]:
    return [PairBatch(*part) for part in zip(*(x.split(size) for x in batch[:5]), strict=True)]


def gradients(net: Clip, kind: str, batch: PairBatch, size: int, how: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients of the batch in parts of `size`: "cached", or "joint", one graph over all parts."""
    torch.manual_seed(5)  # patch dropout
    ids = PairIds(batch.image_id % 5, batch.text_id)  # duplicates across parts
    embed = lambda part: net(*part[:3])  # noqa: E731
    compare = partial(LOSSES[kind], ids=ids)
    if how == "cached":
        loss = cached_gradient_loss(embed, split(batch, size), compare, num_rowwise=2)
    else:
        outputs = [embed(part) for part in split(batch, size)]
        loss = compare(*(torch.cat([o[i] for o in outputs]) for i in (0, 1)), *outputs[-1][2:])
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in net.named_parameters() if p.grad is not None}


def compare(found: tuple, wanted: tuple, tolerance: float) -> None:
    """Losses, and every gradient with its error measured against the length of the whole gradient."""
    torch.testing.assert_close(found[0], wanted[0], rtol=tolerance, atol=0)
    assert found[1].keys() == wanted[1].keys()
    length = torch.stack([g.norm() for g in wanted[1].values()]).norm()
    for name, gradient in wanted[1].items():
        error = (found[1][name] - gradient).norm() / length
        assert error < tolerance, f"{name}: {error}"


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("settings", [{}, {"patch_dropout": 0.5}, {"freeze": "image"}], ids=str)
@pytest.mark.parametrize("size", [1, 4, 6])  # 11 pairs: the last part is smaller
def test_parts_equal_the_whole(kind, dtype, tolerance, settings, size):
    batch = pairs(11, dtype=dtype)
    wanted = gradients(make_net(kind, **settings).to(dtype), kind, batch, size, "joint")
    found = gradients(make_net(kind, **settings).to(dtype), kind, batch, size, "cached")
    compare(found, wanted, tolerance)
    if "patch_dropout" not in settings:
        compare(found, gradients(make_net(kind, **settings).to(dtype), kind, batch, 11, "joint"), tolerance)


def test_random_numbers_go_on_as_if_parts_had_been_embedded_once():
    net, batch = make_net(patch_dropout=0.5), pairs(8)
    states = []
    for how in ("cached", "joint"):
        gradients(net, "info_nce", batch, 4, how)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


@pytest.mark.parametrize("kind", LOSSES)
def test_under_autocast_too(kind):
    results = []
    for micro in (None, 3):
        system = make_system(kind, micro)
        system.optim = partial(adamw, lr=1e-30)
        (loss,) = fit(system, 1, [pairs(8)], precision="bf16-mixed")[1]
        results.append((torch.tensor(loss), {n: p.grad for n, p in system.net.named_parameters()}))
    compare(results[1], results[0], 0.005)  # a weight's gradient is rounded to 8 bits once a part


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("size", [3, 4])
def test_training_is_the_same_with_clipping_accumulation_and_a_schedule(kind, size):
    batches = [pairs(8, seed, torch.float64) for seed in range(4)]
    settings = {"gradient_clip_val": 0.05, "accumulate_grad_batches": 2, "precision": "64-true"}
    runs = [make_system(kind, micro) for micro in (None, size)]
    losses = [fit(system, 4, batches, **settings)[1] for system in runs]
    assert losses[0][0] != losses[0][-1]
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)
    states = [system.state_dict() for system in runs]
    torch.testing.assert_close(states[1], states[0], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_training_in_bfloat16_follows_the_whole_batch(precision):
    runs = [fit(make_system("info_nce", micro), 8, [pairs(8)], precision=precision)[1] for micro in (None, 3)]
    assert runs[1] == pytest.approx(runs[0], rel=0.05)
    assert runs[1][-1] < runs[1][0]


def test_validation_in_parts_is_that_of_the_whole():
    results = []
    for micro in (None, 3):
        system = make_system("siglip", micro)
        trainer, _ = fit(system, 1, [pairs(8)])
        results.append(
            trainer.validate(system, DataLoader([pairs(7, 1)], batch_size=None), verbose=False)[0]["val/loss"]
        )
    assert results[1] == pytest.approx(results[0], rel=1e-5)


def test_every_parameter_gets_a_gradient_and_none_is_left_from_the_step_before():
    system = make_system("siglip", 3)
    system.optim = partial(adamw, lr=1e-30, weight_decay=0.0)
    fit(system, 3, [pairs(8)])
    after = {n: p.grad for n, p in system.net.named_parameters()}
    assert all(g.norm() > 0 for g in after.values())
    system.net.requires_grad_().zero_grad()
    outputs = system.net(*pairs(8)[:3])
    LOSSES["siglip"](*outputs, ids=PairIds(*pairs(8)[3:5])).backward()
    compare((torch.ones(()), after), (torch.ones(()), {n: p.grad for n, p in system.net.named_parameters()}), 1e-5)


def test_what_cannot_be_exact_is_refused():
    net = make_net()
    net.vision.trunk.norm = nn.BatchNorm1d(16)
    with pytest.raises(ValueError, match=r"micro_batch_size is not exact.*vision\.trunk\.norm"):
        check_rows_are_independent(net)
    check_rows_are_independent(net.eval())
    with pytest.raises(ValueError, match="micro_batch_size is 0"):
        ClipMethod(make_net, InfoNce(), vocabulary=WORDS, micro_batch_size=0)
