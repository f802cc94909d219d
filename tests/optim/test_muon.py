"""Muon with AdamW behind one interface."""

from alignlab.optim.muon import muon, orthogonalised

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


def test_matrices_move_as_those_of_torchs_own_muon():
    ours, theirs = net(), net()
    optimizer, _ = build(ours)
    peer = torch.optim.Muon(
        [theirs[1].weight, theirs[3].weight], lr=optimizer.param_groups[0]["lr"], weight_decay=0.05, momentum=0.95,
        adjust_lr_fn="match_rms_adamw",
    )  # fmt: skip
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        for index in (1, 3):
            gradient = torch.randn(ours[index].weight.shape, generator=generator)
            ours[index].weight.grad, theirs[index].weight.grad = gradient, gradient.clone()
        optimizer.step()
        peer.step()
    for index in (1, 3):
        moved = (theirs[index].weight - net()[index].weight).abs().max()
        assert moved > 1e-3
        # bfloat16 rounds otherwise where a product is one of several, and than float32 (a CPU without bfloat16)
        assert (ours[index].weight - theirs[index].weight).abs().max() < 0.02 * moved


def test_a_matrix_is_orthogonalised_the_same_alone_and_among_others():
    matrices = torch.randn(5, 48, 96, generator=torch.Generator().manual_seed(0))
    settings = {"ns_coefficients": (3.4445, -4.775, 2.0315), "ns_steps": 5, "eps": 1e-7}
    together = orthogonalised(matrices, settings)
    alone = torch.cat([orthogonalised(matrix[None], settings) for matrix in matrices])
    assert torch.allclose(together, alone, atol=1e-2) and 0.6 < torch.linalg.svdvals(together).mean() < 1.2


def test_a_cpu_without_bfloat16_orthogonalises_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = torch.randn(1, 48, 96, generator=torch.Generator().manual_seed(0))
    settings = {"ns_coefficients": (3.4445, -4.775, 2.0315), "ns_steps": 5, "eps": 1e-7}
    exact = matrix[0].double() / matrix[0].double().norm()
    for _ in range(5):
        gram = exact @ exact.T
        exact = 3.4445 * exact + (-4.775 * gram + 2.0315 * gram @ gram) @ exact
    off = []
    for imitated in (True, False):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda there=not imitated: there)
        off.append((orthogonalised(matrix, settings)[0] - exact).abs().max())
    assert off[0] < 1e-5 < 1e-3 < off[1]


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
