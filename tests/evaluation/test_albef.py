"""Evaluation of the real ALBEF net at a tiny size and with an odd grid."""

from functools import partial

from alignlab.evaluation.encoding import encode_retrieval_set
from alignlab.evaluation.grounding import grad_cam
from alignlab.evaluation.reranking import rerank
from alignlab.models.albef import Albef, AlbefEncoder
from alignlab.models.vision import vision_transformer
from alignlab.types.pairs import RetrievalBatch

import pytest
import torch


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    vision = partial(vision_transformer, image_size=24, patch_size=8, width=24, depth=1, heads=3)
    encoder = partial(
        AlbefEncoder, vision, text_width=16, heads=4, text_layers=1, fusion_layers=3, max_positions=9, embed_dim=8
    )
    net = Albef(encoder, vocab_size=40).eval()
    for parameter in net.parameters():  # far from its start, so that scores differ
        torch.nn.init.normal_(parameter, std=0.3)
    return net


def batches():
    generator = torch.Generator().manual_seed(1)
    for start in (0, 3):
        mask = torch.arange(9) < torch.randint(2, 9, (6, 1), generator=generator)
        ids = torch.randint(4, 40, (6, 9), generator=generator) * mask
        index = torch.arange(start, start + 3)
        image = torch.randn(3, 3, 24, 24, generator=generator)
        yield RetrievalBatch(image, ids, mask, index.repeat_interleave(2), index)


def test_reranking_equals_every_pair_by_itself(net):
    encoded = encode_retrieval_set(net, batches(), keep_tokens=True)
    table = torch.zeros(12, 6)
    with torch.no_grad():
        for text in range(12):
            mask = encoded.text_mask[text : text + 1]
            for image in range(6):
                logits, _ = net.match_with_attention(
                    encoded.image_tokens[image : image + 1], encoded.text_tokens[text : text + 1], mask, 0
                )
                table[text, image] = logits[0, 1] - logits[0, 0]
    assert table.std() > 0.01
    for texts_per_pass in (5, 256):
        forth, back = rerank(net, encoded, top_k=20, texts_per_pass=texts_per_pass)
        torch.testing.assert_close(table.gather(1, forth.index), forth.score, atol=1e-5, rtol=0)
        torch.testing.assert_close(table.T.gather(1, back.index), back.score, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layer", [0, 2])
def test_grad_cam(net, layer):
    encoded = encode_retrieval_set(net, batches(), keep_tokens=True)
    arguments = encoded.image_tokens, encoded.text_tokens[::2], encoded.text_mask[::2]
    heat = grad_cam(net, *arguments, layer=layer, grid=net.grid)
    assert heat.shape == (6, encoded.text_mask.shape[1], 3, 3) and heat.max() > 0 and heat.min() >= 0
    assert all(parameter.grad is None for parameter in net.parameters())
    # The gradient is that of one pair: in a batch of its own the heat is the same.
    alone = grad_cam(net, *(x[3:4] for x in arguments), layer=layer, grid=net.grid)
    torch.testing.assert_close(heat[3:4], alone, atol=1e-6, rtol=1e-4)
