"""ALBEF's start weights by name: BERT's layers as text and fusion layers, DeiT's tower at another picture size."""

from functools import partial
from pathlib import Path

from alignlab.models.albef import AlbefEncoder
from alignlab.models.vision import resize_position_embedding, vision_transformer

import pytest
import timm
import torch
from torch.testing import assert_close
from transformers import BertConfig, BertForMaskedLM

TOWER = partial(vision_transformer, image_size=32, patch_size=16, width=16, depth=1, heads=2)


def encoder(**settings) -> AlbefEncoder:
    sizes = {"vocab_size": 60, "text_width": 32, "heads": 4, "text_layers": 2, "fusion_layers": 2, "max_positions": 40}
    return AlbefEncoder(TOWER, **{**sizes, "embed_dim": 8, **settings}).eval()


@pytest.fixture
def bert(tmp_path: Path) -> BertForMaskedLM:
    sizes = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = BertConfig(**sizes, intermediate_size=128, max_position_embeddings=40, initializer_range=0.2)
    model = BertForMaskedLM(config).eval()
    with torch.no_grad():
        model.cls.predictions.bias.normal_()
    model.save_pretrained(tmp_path)
    return model


def test_text_and_fusion_begin_as_the_layers_of_bert(bert: BertForMaskedLM, tmp_path: Path) -> None:
    net, mask = encoder(text_weights=str(tmp_path)), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
    ids = torch.randint(60, mask.shape)
    with torch.no_grad():
        theirs = bert(ids, mask.long(), output_hidden_states=True)
        assert_close(net.text_tokens(ids, mask)[mask], theirs.hidden_states[2][mask], rtol=1e-4, atol=1e-5)
        x = theirs.hidden_states[2]
        for layer in net.fusion:  # without the cross-attention, which BERT hasn't
            x = layer.feed_forward(layer.self_attention(x, net.fusion_bias(mask, x.dtype)))
        assert_close(net.language_logits(x[mask]), theirs.logits[mask], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text_layers": 3}, "4 layers instead of 5"),
        ({"vocab_size": 61}, r"language_head.bias \(60,\) instead of \(61,\)"),
        ({"text_weights": "/no/such/bert"}, "text_weights=/no/such/bert: no BERT could be loaded"),
    ],
)
def test_another_bert_is_refused(bert: BertForMaskedLM, tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        encoder(**{"text_weights": str(tmp_path), **settings})
    assert "\n" not in str(caught.value)


def test_a_tower_of_timm_at_another_size(tmp_path: Path) -> None:
    whole = timm.create_model("deit_tiny_patch16_224").eval()
    torch.save(whole.state_dict(), tmp_path / "deit.pth")
    tower = vision_transformer(
        image_size=64, name="deit_tiny_patch16_224", pretrained=str(tmp_path / "deit.pth")
    ).eval()
    with torch.no_grad():
        whole.pos_embed = torch.nn.Parameter(resize_position_embedding(whole.pos_embed, (4, 4)))  # as the reference
        whole.patch_embed.img_size, whole.patch_embed.grid_size = (64, 64), (4, 4)
        image = torch.randn(2, 3, 64, 64)
        assert_close(tower.tokens(image), whole.forward_features(image), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="name=deit_tiny_patch16_224: its weights can't be loaded"):
        vision_transformer(image_size=64, name="deit_tiny_patch16_224", pretrained=str(tmp_path / "none.pth"))
