"""Grad-CAM: shape, locality, formula, no traces; the pointing game by hand."""

from alignlab.evaluation.grounding import box_mask, box_ranking, grad_cam, mean_heat, overlap, pointing_game, upsample

import pytest
import torch
from torch import nn


class LookingNet(nn.Module):
    """Attends from word t to patch `looks[t]`; the match logit is the attended brightness, weighted by head."""

    def __init__(self, looks, patches, head_weight=(1.0, 1.0)):
        super().__init__()
        bias = torch.full((len(head_weight), len(looks), 1 + patches), 0.0)
        bias[:, torch.arange(len(looks)), torch.tensor(looks)] = 4.0
        self.bias = nn.Parameter(bias)
        self.head_weight = torch.tensor(head_weight)

    def match_with_attention(self, image_tokens, text_tokens, text_mask, layer):
        assert layer == 1
        attention = (self.bias + text_tokens.sum(-1)[:, None, :, None] * 0).softmax(-1)  # (B, H, T, S)
        seen = attention @ image_tokens[:, None]  # (B, H, T, 1)
        score = (seen[..., 0].sum(-1) * self.head_weight).sum(1)
        return torch.stack([-score, score], 1), attention


@pytest.mark.parametrize("grid", [(3, 5), (1, 1), (4, 2)])
def test_heat_has_the_grids_shape_and_lies_where_the_word_looks(grid):
    patches = grid[0] * grid[1]
    looks = [1, patches, 1]
    net = LookingNet(looks, patches)
    heat = grad_cam(
        net, torch.ones(2, 1 + patches, 1), torch.randn(2, 3, 4), torch.ones(2, 3).bool(), layer=1, grid=grid
    )
    assert heat.shape == (2, 3, *grid) and bool((heat >= 0).all())
    for t, place in enumerate(looks):
        assert heat[0, t].argmax() == place - 1  # token 0 is CLS


def test_the_formula_negative_gradients_and_padding():
    net = LookingNet([1, 2], 4, head_weight=(2.0, -1.0))
    brightness = torch.tensor([5.0, 1.0, 2.0, 3.0, 4.0])[None, :, None]
    heat = grad_cam(net, brightness, torch.zeros(1, 2, 3), torch.tensor([[True, False]]), layer=1, grid=(2, 2))
    attention = net.bias.softmax(-1).detach()
    # d logit / d A = head weight * brightness: the second head's is negative and drops out of the mean over two heads
    expected = (attention[0, 0] * 2 * brightness[0, :, 0])[1:] / 2
    torch.testing.assert_close(heat[0, 0].flatten(), expected, atol=1e-6, rtol=0)
    assert not heat[0, 1].any()


def test_no_traces_frozen_nets_and_inference_mode():
    net = LookingNet([1], 4)
    arguments = torch.ones(1, 5, 1), torch.zeros(1, 1, 3), torch.ones(1, 1).bool()
    expected = grad_cam(net, *arguments, layer=1, grid=(2, 2))
    assert all(p.grad is None for p in net.parameters()) and not expected.requires_grad
    net.requires_grad_(False)
    with torch.inference_mode():
        inference = torch.ones(1, 5, 1), torch.zeros(1, 1, 3), torch.ones(1, 1).bool()
        torch.testing.assert_close(grad_cam(net, *inference, layer=1, grid=(2, 2)), expected)
    with pytest.raises(ValueError, match="1 \\+ 3 x 3"):
        grad_cam(net, *arguments, layer=1, grid=(3, 3))


def test_upsample_keeps_the_place_and_stays_positive():
    heat = torch.zeros(2, 3, 5)
    heat[0, 2, 4] = heat[1, 0, 0] = 1.0
    large = upsample(heat, (30, 70))
    assert large.shape == (2, 30, 70) and bool((large >= 0).all())
    row, column = divmod(int(large[0].argmax()), 70)
    assert row >= 20 and column >= 56


def test_mean_heat_of_a_word_of_two_tokens():
    heat = torch.arange(12.0).view(1, 3, 2, 2)
    torch.testing.assert_close(mean_heat(heat, torch.tensor([[True, False, True]])), (heat[:, 0] + heat[:, 2]) / 2)


def test_pointing_game_by_hand():
    heat = torch.zeros(3, 4, 4)
    heat[0, 1, 2] = 1.0  # row 1, column 2: in one of the two boxes
    heat[1, 3, 3] = 1.0  # outside
    # The third heat is flat: half of the picture is its box.
    boxes = [[(0, 3, 1, 4), (2, 0, 4, 2)], [(0, 0, 2, 2)], [(0, 0, 2, 4)]]
    hit, chance = pointing_game(heat, torch.stack([box_mask(each, (4, 4)) for each in boxes]))
    assert hit.tolist() == [1.0, 0.0, 0.5]
    assert chance.tolist() == [5 / 16, 4 / 16, 8 / 16]


def test_boxes_are_ranked_by_their_heat_over_the_root_of_their_area():
    heat = torch.zeros(10, 10)
    heat[2:4, 2:4] = 1.0  # 4 within 4 pixels
    heat[6:9, 5:9] = 0.5  # 6 within 12
    small, large, whole, away = (2, 2, 4, 4), (5, 6, 9, 9), (0, 0, 10, 10), (8, 0, 10, 2)
    assert box_ranking(heat, [away, large, whole, small], [small]) == (1.0, 0.25)  # 2, 1.73, 1 and 0
    assert box_ranking(heat, [(2, 2, 3, 3), large], [large]) == (1.0, 0.5)  # 1 and 1.73; over the area itself 1 and 0.5
    assert box_ranking(heat, [small, large, (2, 2, 5, 4)], [(2, 2, 5, 4)]) == (
        1.0,
        pytest.approx(2 / 3),
    )  # overlap 2 / 3
    assert box_ranking(torch.zeros(10, 10), [small, large, whole, away], [large]) == (0.25, 0.25)  # no heat: blind
    assert overlap((0, 0, 4, 2), (2, 0, 6, 2)) == pytest.approx(4 / 12) and overlap(small, away) == 0
