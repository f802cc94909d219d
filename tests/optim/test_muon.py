"""Muon with AdamW behind one interface."""

from alignlab.optim.muon import muon

import pytest
import torch
from torch import nn


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(20, 16), nn.Linear(16, 32), nn.LayerNorm(32), nn.Linear(32, 16), nn.Linear(16, 2))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, scheduler, seed: int) -> None:
    ids = torch.randint(20, (8,), generator=torch.Generator().manual_seed(seed))

    def closure():
        optimizer.zero_grad()
        loss = model(ids).square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) is not None
    scheduler.step()


def build(model: nn.Module, **settings):
    made = muon(model, lr=1e-2, total_steps=10, warmup_steps=2, **settings)
    return made["optimizer"], made["lr_scheduler"]["scheduler"]


def test_hidden_matrices_go_to_muon_and_everything_is_trained_once():
    model = net()
    optimizer, _ = build(model)
    matrices = [p for group in optimizer.parts[0].param_groups for p in group["params"]]
    assert {id(p) for p in matrices} == {id(model[1].weight), id(model[3].weight)}
    every = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(every) == sorted(id(p) for p in model.parameters())


def test_a_step_of_muon_moves_weak_directions_almost_as_far_as_strong_ones():
    model = net()
    optimizer, scheduler = build(model, weight_decay=1e-9)
    before = model[3].weight.detach().clone()
    step(model, optimizer, scheduler, 0)
    moved, gradient = (torch.linalg.svdvals(x) for x in (model[3].weight.detach() - before, model[3].weight.grad))
    assert moved[3] / moved[0] > 3 * gradient[3] / gradient[0]


def test_the_schedule_reaches_both_parts():
    model = net()
    optimizer, scheduler = build(model, other_lr_ratio=0.5)
    for seed in range(4):
        step(model, optimizer, scheduler, seed)
    rates = [part.param_groups[0]["lr"] for part in optimizer.parts]
    assert 0 < rates[0] < 1e-2 and rates[1] == pytest.approx(0.5 * rates[0])


def test_resuming_equals_going_on_bit_for_bit():
    whole, halves = net(), net()
    optimizer, scheduler = build(whole)
    for seed in range(6):
        step(whole, optimizer, scheduler, seed)
    optimizer, scheduler = build(halves)
    for seed in range(3):
        step(halves, optimizer, scheduler, seed)
    saved = [x.state_dict() for x in (halves, optimizer, scheduler)]
    again = net()
    optimizer, scheduler = build(again)
    for target, state in zip((again, optimizer, scheduler), saved, strict=True):
        target.load_state_dict(state)
    for seed in range(3, 6):
        step(again, optimizer, scheduler, seed)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_the_references_decay_is_refused_by_name():
    with pytest.raises(ValueError, match="use adamw_albef"):
        muon(net(), lr=1e-3, total_steps=10, decay="reference")


def test_no_matrix_is_a_clear_error():
    with pytest.raises(ValueError, match="use adamw"):
        muon(nn.LayerNorm(4), lr=1e-3, total_steps=10)
