"""FLOPs by hand; what is computed twice is counted once."""

from alignlab.cost.flops import ModelFlops, measured_flops, repeated

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def counted(step) -> int:
    with ModelFlops() as counter:
        step()
    return counter.get_total_flops()


def test_a_linear_layer_by_hand_with_and_without_checkpointing():
    net, x = nn.Sequential(nn.Linear(8, 16, bias=False), nn.ReLU(), nn.Linear(16, 4, bias=False)), torch.randn(5, 8)
    forward = 2 * 5 * (8 * 16 + 16 * 4)
    wanted = forward * 3 - 2 * 5 * 8 * 16  # the input asks for no gradient
    assert counted(lambda: net(x).sum().backward()) == wanted
    assert counted(lambda: checkpoint(net, x, use_reentrant=False).sum().backward()) == wanted


def test_attention_by_hand():
    query = torch.randn(2, 3, 7, 4, requires_grad=True)
    product = (
        2 * 2 * 3 * 7 * 7 * 4
    )  # two in the forward pass; five in the backward pass of a fused kernel, the scores once more
    attend = nn.functional.scaled_dot_product_attention
    assert counted(lambda: attend(query, query, query)) == 2 * product
    assert counted(lambda: attend(query, query, query).sum().backward()) == 7 * product


def test_a_forward_pass_that_is_repeated_is_left_out():
    net, x = nn.Linear(8, 16), torch.randn(5, 8)

    def step():
        with torch.no_grad():
            net(x)  # a teacher's
            with repeated():
                net(x)

    assert counted(step) == 2 * 5 * 8 * 16


def test_measured_peak_is_a_rate():
    assert measured_flops(torch.device("cpu"), torch.float32, seconds=0.0) > 1e8
