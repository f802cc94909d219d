"""Scalar heads and pooling by mask."""

from alignlab.models.language.value_head import ScalarHead, last_position, pooled

import pytest
import torch


def test_pooling_reads_masks_on_either_side():
    hidden = torch.arange(24.0).view(2, 4, 3)
    mask = torch.tensor([[True, True, False, False], [False, False, True, True]])
    assert last_position(mask).tolist() == [1, 3]
    assert torch.equal(pooled(hidden, mask), torch.stack([hidden[0, 1], hidden[1, 3]]))
    assert torch.equal(pooled(hidden, mask, "mean"), torch.stack([hidden[0, :2].mean(0), hidden[1, 2:].mean(0)]))


def test_heads_start_as_they_should():
    torch.manual_seed(0)
    assert (ScalarHead(64, "zero")(torch.randn(5, 64)) == 0).all()
    head = ScalarHead(4000)
    assert head.weight.std().item() == pytest.approx(4001**-0.5, rel=0.05) and head.bias.item() == 0
    assert (
        head(torch.randn(2, 3, 4000).bfloat16()).shape == (2, 3) and head(torch.randn(1, 4000)).dtype == torch.float32
    )
