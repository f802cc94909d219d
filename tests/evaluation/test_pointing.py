"""Grad-CAM on nets in which it is planted what a word looks at, at the reference's settings and where words are compared with patches."""

from functools import partial

from alignlab.evaluation.grounding import box_mask, grad_cam, pointing_game, upsample
from alignlab.models.albef import Albef, AlbefEncoder
from alignlab.models.vision import vision_transformer

import pytest
import torch

WIDTH, THINGS, ROWS, COLUMNS, SEEN, TOLD = 16, 6, 3, 4, 15, 14
CELLS = torch.tensor([[0, 5, 11], [7, 2, 8]])  # of the things 0, 1, 2, in two pictures


def planted(fusion_layers: int, layer: int, **settings) -> Albef:
    """Words of dimension n look, in this layer, at patches of dimension n; the next layer tells [CLS] what they saw."""
    torch.manual_seed(0)
    vision = partial(vision_transformer, image_size=24, patch_size=8, width=WIDTH, depth=1, heads=2)
    encoder = partial(
        AlbefEncoder, vision, text_width=WIDTH, heads=2, text_layers=1, fusion_layers=fusion_layers, max_positions=9,
        embed_dim=8, dropout=0.0, **settings,
    )  # fmt: skip
    net = Albef(encoder, vocab_size=20).eval()
    with torch.no_grad():
        for part in net.encoder.fusion:  # nothing but norms
            for linear in (part.self_attention.out, part.cross_attention.out, part.feed_forward.out):
                linear.weight.zero_()
                linear.bias.zero_()
        cross, attention = net.encoder.fusion[layer].cross_attention, net.encoder.fusion[layer + 1].self_attention
        for x in (
            cross.query.weight,
            cross.key_value.weight,
            attention.query_key_value.weight,
            net.matching_head.weight,
        ):
            x.zero_()
        same = torch.eye(THINGS)
        if net.encoder.late_interaction is None:
            cross.query.weight[:THINGS, :THINGS] = 2 * same
            cross.key_value.weight[:THINGS, :THINGS] = 2 * same
        else:
            for linear in (net.encoder.late_interaction.word, net.encoder.late_interaction.patch):
                linear.weight.zero_()
                linear.weight[:THINGS, :THINGS] = same
                linear.bias.zero_()
        cross.key_value.weight[WIDTH, :THINGS] = 1.0  # a value of the first head: there is a thing
        cross.out.weight[SEEN, 0] = 3.0
        attention.query_key_value.weight[2 * WIDTH, SEEN] = 1.0  # all look at all, alike
        attention.out.weight[TOLD, 0] = 3.0
        net.matching_head.weight[1, TOLD] = 1.0
    return net


def scenes() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Image tokens, text tokens ([CLS] and the three things) and the cells as boxes of a picture of 30 x 40: (2, 3, 30, 40)."""
    g = torch.Generator().manual_seed(1)
    image, text = (
        0.3 * torch.randn(2, 1 + ROWS * COLUMNS, WIDTH, generator=g),
        0.1 * torch.randn(2, 4, WIDTH, generator=g),
    )
    for thing in range(3):
        image[torch.arange(2), 1 + CELLS[:, thing], thing] += 3.0
        text[:, 1 + thing, thing] += 3.0
    corners = [[(int(c) % COLUMNS * 10, int(c) // COLUMNS * 10) for c in row] for row in CELLS]
    boxes = [[box_mask([(x, y, x + 10, y + 10)], (30, 40)) for x, y in row] for row in corners]
    return image, text, torch.stack([torch.stack(row) for row in boxes])


def hits(net: Albef, layer: int) -> torch.Tensor:
    image, text, boxes = scenes()
    heat = grad_cam(net, image, text, torch.ones(2, 4).bool(), layer=layer, grid=(ROWS, COLUMNS))
    return pointing_game(upsample(heat[:, 1:], (30, 40)).flatten(0, 1), boxes.flatten(0, 1))[0]


@pytest.mark.parametrize(
    ("layers", "layer", "settings"), [(6, 2, {}), (3, 0, {"late_interaction_dim": 8, "affinity": 9.0})]
)
def test_it_points_where_the_net_looks_in_the_layer_that_is_asked_by_itself(layers, layer, settings):
    net = planted(layers, layer, **settings)
    assert net.pointing_layer == layer
    assert hits(net, layer).tolist() == [1.0] * 6
    # a layer in which words look at nothing that matters: all places are alike, so a point is as good as a blind one
    assert hits(net, layer + 2 if layer + 3 <= layers else layer + 1).mean() < 0.2
