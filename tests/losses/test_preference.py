"""Bradley-Terry and the DPO family by hand; parity with trl is in tests/parity."""

import math

from alignlab.losses.preference import bradley_terry, dpo

import pytest
import torch

A, B = torch.tensor([1.0, -0.5]), torch.tensor([0.2, 0.3])


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_bradley_terry_by_hand():
    hard = bradley_terry(A, B, torch.ones(2))
    assert hard.item() == pytest.approx(-(math.log(sigma(0.8)) + math.log(sigma(-0.8))) / 2, rel=1e-6)
    soft = bradley_terry(A, B, torch.tensor([0.7, 0.5]))
    first = -0.7 * math.log(sigma(0.8)) - 0.3 * math.log(sigma(-0.8))
    second = -0.5 * math.log(sigma(-0.8)) - 0.5 * math.log(sigma(0.8))
    assert soft.item() == pytest.approx((first + second) / 2, rel=1e-6)
    centred = bradley_terry(A, B, torch.ones(2), margin=torch.tensor([0.5, 0.0]), centering=0.1)
    wanted = -(math.log(sigma(0.3)) + math.log(sigma(-0.8))) / 2 + 0.1 * (1.2**2 + 0.2**2) / 2
    assert centred.item() == pytest.approx(wanted, rel=1e-6)


def test_soft_labels_are_learnt_as_they_are():
    difference = torch.zeros(1, requires_grad=True)
    for _ in range(400):
        (gradient,) = torch.autograd.grad(bradley_terry(difference, torch.zeros(1), torch.tensor([0.8])), difference)
        difference = (difference - 2 * gradient).detach().requires_grad_()
    assert torch.sigmoid(difference).item() == pytest.approx(0.8, abs=1e-4)


def test_the_dpo_family_by_hand():
    before = (torch.tensor([0.5, 0.0]), torch.tensor([0.1, 0.1]))
    h = [(1.0 - 0.5) - (0.2 - 0.1), (-0.5 - 0.0) - (0.3 - 0.1)]
    found = dpo(A, B, *before, beta=0.3)
    assert found.loss.tolist() == pytest.approx([-math.log(sigma(0.3 * x)) for x in h], rel=1e-5)
    assert found.first_reward.tolist() == pytest.approx([0.15, -0.15], rel=1e-5)
    smooth = dpo(A, B, *before, beta=0.3, kind="cdpo", label_smoothing=0.1).loss
    assert smooth.tolist() == pytest.approx(
        [-0.9 * math.log(sigma(0.3 * x)) - 0.1 * math.log(sigma(-0.3 * x)) for x in h], rel=1e-5
    )
    shared = dpo(A, B, *before, beta=0.3, share=torch.tensor([0.9, 0.9])).loss
    assert torch.allclose(shared, smooth)
    lengths = (torch.tensor([2.0, 4.0]), torch.tensor([5.0, 1.0]))
    ipo = dpo(A, B, *before, beta=0.3, kind="ipo", first_length=lengths[0], second_length=lengths[1]).loss
    means = [0.5 / 2 - 0.1 / 5, -0.5 / 4 - 0.2 / 1]
    assert ipo.tolist() == pytest.approx([(x - 1 / 0.6) ** 2 for x in means], rel=1e-5)
    with pytest.raises(ValueError, match="lengths"):
        dpo(A, B, *before, kind="ipo")
