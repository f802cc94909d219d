"""The options of ALBEF's net for small data: directed heads, words compared with patches, positions, the local tower."""

from functools import partial

from alignlab.models.albef import Albef, AlbefEncoder
from alignlab.models.bert import attention_bias
from alignlab.models.local import LocalTower
from alignlab.models.vision import vision_transformer
from alignlab.optim.parameter_groups import layer_scales

import pytest
import torch
from torch import Tensor

TEXTS, TOKENS, PATCHES = 3, 6, 4
VISION = partial(vision_transformer, image_size=16, patch_size=8, width=16, depth=1, heads=2)
OPTIONS = ({"directed_heads": True}, {"late_interaction_dim": 8}, {"fusion_positions": True})
ALL = {key: value for option in OPTIONS for key, value in option.items()}


def albef(vision=VISION, fusion_layers: int = 2, **settings) -> Albef:
    torch.manual_seed(0)
    sizes = {"text_width": 16, "heads": 2, "text_layers": 1, "max_positions": 8, "embed_dim": 8}
    encoder = partial(AlbefEncoder, vision, **sizes, fusion_layers=fusion_layers, **settings)
    net = Albef(encoder, vocab_size=20).eval()
    for name, parameter in net.named_parameters():  # far from its start, so that everything counts
        if parameter.ndim > 1 and "stem" not in name:
            torch.nn.init.normal_(parameter, std=0.4)
    return net


def texts() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randint(4, 20, (TEXTS, TOKENS), generator=g), torch.arange(TOKENS)[None] < torch.tensor(
        [[6], [4], [2]]
    )


def match(net: Albef, image: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Row i with picture i: (N, 2)."""
    return net.matching_head(
        net.encoder.fuse(net.encoder.text_tokens(ids, mask), mask, net.image_states(image)).matching
    )


def test_half_of_the_heads_see_no_later_word_the_others_no_earlier_one():
    bias = attention_bias(torch.tensor([[True, True, True, False]]), torch.float32, directed_heads=3)
    seen = bias[0] == 0
    assert bias.shape == (1, 3, 4, 4) and torch.isfinite(bias).all()
    assert seen[0].tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert seen[1].tolist() == seen[2].tolist() == [[1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize("fusion_layers", [1, 2])
@pytest.mark.parametrize("option", [*OPTIONS, ALL], ids=lambda option: " ".join(option))
def test_every_way_through_the_fusion_gives_the_same_and_every_parameter_counts(option, fusion_layers):
    """Alone and in a batch, with padding and without, [CLS] only and in full, pictures by place and by name, with maps."""
    net, (ids, mask) = albef(fusion_layers=fusion_layers, **option), texts()
    encoder, image = net.encoder, net.encode_image(torch.randn(TEXTS, 3, 16, 16)).tokens
    together = match(net, image, ids, mask)
    assert torch.isfinite(together).all() and together.std(0).min() > 1e-3
    for i, length in enumerate(mask.sum(1).tolist()):
        alone = match(net, image[i : i + 1], ids[i : i + 1, :length], mask[i : i + 1, :length])
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=0)
    logits, weights = net.match_with_attention(image, encoder.text_tokens(ids, mask), mask, fusion_layers - 1)
    torch.testing.assert_close(logits, together, atol=1e-5, rtol=0)
    assert weights.shape == (TEXTS, 2, TOKENS, 1 + PATCHES)
    order, every = torch.tensor([2, 0, 1]), torch.arange(ids.numel())
    tokens = encoder.text_tokens(ids, mask)
    fused = encoder.fuse(
        torch.cat([tokens, tokens, tokens[order]]), torch.cat([mask, mask, mask[order]]), net.image_states(image),
        picture=order, masked_rows=slice(0, TEXTS), masked_position=every,
    )  # fmt: skip
    named = net.matching_head(fused.matching)
    torch.testing.assert_close(named, torch.cat([together, together[order]]), atol=1e-5, rtol=0)
    full = net.matching_head(fused.masked.view(TEXTS, TOKENS, -1)[:, 0])
    torch.testing.assert_close(full, together, atol=1e-5, rtol=0)
    (named * torch.randn_like(named)).sum().backward()
    added = [p for name, p in net.named_parameters() if "late_interaction" in name or "fusion_positions" in name]
    assert len(added) == {"directed_heads": 0, "late_interaction_dim": 5, "fusion_positions": 2}.get(
        " ".join(option), 7
    )
    assert all(p.grad.abs().sum() > 0 for p in added)


def test_a_word_looks_at_the_patch_that_it_is_like():
    net, (ids, mask) = albef(late_interaction_dim=8, affinity=1e5), texts()
    image, compare = torch.randn(TEXTS, 1 + PATCHES, 16), net.encoder.late_interaction
    tokens = net.encoder.text_tokens(ids, mask)
    likeness = (compare.words(tokens) @ compare.patches(image).transpose(1, 2))[..., 1:]
    weights = net.match_with_attention(image, tokens, mask, 0)[1]
    looked = weights.argmax(3)
    wanted = torch.where((likeness.amax(2) > 0)[:, None], 1 + likeness.argmax(2)[:, None], 0).expand_as(looked)
    assert torch.equal(looked[mask[:, None].expand_as(looked)], wanted[mask[:, None].expand_as(looked)])
    assert not compare.patches(image)[:, 0].any()  # no word is about CLS
    later = net.match_with_attention(image, tokens, mask, 1)[1]
    assert later.max() < 0.999  # the first layer alone


def test_without_positions_a_local_towers_cells_may_change_places_and_with_them_not():
    ids, mask = texts()
    for positions in (False, True):
        net = albef(fusion_positions=positions)
        image = torch.randn(TEXTS, 1 + PATCHES, 16)
        moved = image[:, [0, 2, 1, 4, 3]]
        same = torch.allclose(match(net, image, ids, mask), match(net, moved, ids, mask), atol=1e-5)
        assert same != positions
    with pytest.raises(ValueError, match="patch_dropout must be 0"):
        match(net, image[:, :-1], ids, mask)


@pytest.mark.parametrize(
    "wrong", [{"directed_heads": True, "causal": True}, {"late_interaction_dim": 4, "affinity": 0.0}]
)
def test_options_that_cannot_be_name_their_key(wrong):
    with pytest.raises(ValueError, match=f"{list(wrong)[-1] if 'affinity' in wrong else 'directed_heads'}="):
        albef(**wrong)


def test_the_local_tower_is_local_and_takes_the_place_of_a_transformer():
    torch.manual_seed(0)
    tower, image = LocalTower(image_size=32, patch_size=4, width=16, depth=2), torch.randn(2, 3, 32, 32)
    tokens = tower.tokens(image)
    assert tokens.shape == (2, 65, 16) and tower.grid == (8, 8) and torch.equal(tower(image), tokens[:, 0])
    torch.testing.assert_close(tokens[:, 0], tokens[:, 1:].mean(1))
    x = torch.randn(1, 8, 8, 16, requires_grad=True)
    tower.blocks[1](tower.blocks[0](x))[0, 0, 0].sum().backward()
    assert x.grad[0, 2, 2].any() and not x.grad[0, 3:].any() and not x.grad[0, :, 3:].any()
    tower.gradient_checkpointing = True
    torch.testing.assert_close(tower.tokens(image), tokens, rtol=0, atol=0)
    assert layer_scales(tower, 0.5)["blocks.0.inner.weight"] == 0.25
    with pytest.raises(ValueError, match="image_size=30 must be a multiple"):
        LocalTower(image_size=30, patch_size=4, width=16)
    net, (ids, mask) = albef(partial(LocalTower, image_size=16, patch_size=8, width=16, depth=1), **ALL), texts()
    assert match(net, net.encode_image(torch.randn(TEXTS, 3, 16, 16)).tokens, ids, mask).shape == (TEXTS, 2)
