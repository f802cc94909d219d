"""ALBEF's encoder where its text is causal: a state is that of the text cut off behind it, with and without a picture."""

from functools import partial

from alignlab.models.albef import AlbefEncoder
from alignlab.models.vision import vision_transformer

import pytest
import torch
from torch import Tensor

TEXTS, TOKENS = 3, 6


def encoder(**settings) -> AlbefEncoder:
    torch.manual_seed(0)
    vision = partial(vision_transformer, image_size=16, patch_size=8, width=16, depth=1, heads=2)
    sizes = {"text_width": 16, "heads": 2, "text_layers": 2, "fusion_layers": 2, "max_positions": 8, "embed_dim": 8}
    return AlbefEncoder(vision, vocab_size=20, **sizes, **settings).eval()


def states(net: AlbefEncoder, ids: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """(N, T, W) of the text alone, and fused."""
    mask = torch.ones_like(ids, dtype=torch.bool)
    tokens, pictures = net.text_tokens(ids, mask), net.image_states(net.vision.tokens(image))
    every = torch.arange(ids.numel())
    fused = net.fuse(tokens, mask, pictures, masked_rows=slice(0, len(ids)), masked_position=every).masked
    return tokens, fused.view_as(tokens)


@pytest.mark.parametrize("causal", [True, False])
def test_a_state_depends_on_what_stands_before_it_alone(causal: bool) -> None:
    net, image = encoder(causal=causal), torch.randn(TEXTS, 3, 16, 16)
    ids = torch.randint(20, (TEXTS, TOKENS))
    whole = states(net, ids, image)
    for length in (1, 3, 5):
        for state, cut in zip(whole, states(net, ids[:, :length], image), strict=True):
            assert torch.allclose(state[:, :length], cut, atol=1e-5) == causal


def test_one_asking_token_and_padding_change_nothing() -> None:
    net, image = encoder(causal=True), torch.randn(TEXTS, 3, 16, 16)
    ids, mask = torch.randint(20, (TEXTS, TOKENS)), torch.arange(TOKENS)[None] < torch.tensor([[6], [4], [2]])
    tokens, fused = states(net, ids, image)
    padded = net.text_tokens(ids.masked_fill(~mask, 0), mask)
    torch.testing.assert_close(padded[mask], tokens[mask])
    first = net.fuse(tokens, mask, net.image_states(net.vision.tokens(image))).matching
    torch.testing.assert_close(first, fused[:, 0])
