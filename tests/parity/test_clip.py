"""Clip against transformers' CLIPModel and SiglipModel: embeddings, logits, loss and every gradient, with copied weights."""

from alignlab.losses.contrastive import InfoNce, SigLip
from alignlab.models.released.sizes import untrained
from alignlab.models.released.transformers_layout import from_transformers, load_transformers, sizes_of

import pytest
import torch
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

END = 49
SIZES = {"hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
TEXT = {
    **SIZES,
    "vocab_size": 50,
    "max_position_embeddings": 12,
    "bos_token_id": 48,
    "eos_token_id": END,
    "pad_token_id": 0,
}
VISION = {**SIZES, "hidden_size": 48, "image_size": 32, "patch_size": 8}


def pair(kind: str):
    torch.manual_seed(0)
    if kind == "clip":
        reference, loss = CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=24)), InfoNce()
    else:
        vision = {**VISION, "hidden_size": 32}  # SigLIP has no image projection: equal widths
        reference, loss = (
            SiglipModel(SiglipConfig(text_config={**TEXT, "projection_size": 32}, vision_config=vision)),
            SigLip(chunk_size=4),
        )
    with torch.no_grad():  # away from the zeros and ones of a fresh net
        for name, parameter in reference.named_parameters():
            if name == "logit_bias":
                parameter.fill_(-3.0)
            elif name != "logit_scale":
                parameter.add_(torch.randn_like(parameter) * 0.1)
    net = untrained(sizes_of(reference.config), vocab_size=50)
    load_transformers(net, reference.state_dict())
    return reference.eval(), net.eval(), loss


def texts(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(1, 48, (6, 12))
    if kind == "siglip":  # reads padding like words
        return ids, torch.ones_like(ids, dtype=torch.bool)
    length = torch.tensor([12, 4, 7, 9, 3, 10])
    mask = torch.arange(12) < length[:, None]
    ids = ids.masked_fill(~mask, 0)
    ids[torch.arange(6), length - 1] = END
    return ids, mask


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_embeddings_logits_loss_and_gradients_equal_transformers(kind):
    reference, net, loss = pair(kind)
    image, (ids, mask) = torch.randn(6, 3, 32, 32), texts(kind)
    theirs = reference(
        pixel_values=image, input_ids=ids, attention_mask=mask.long() if kind == "clip" else None, return_loss=True
    )
    ours = net(image, ids, mask)
    torch.testing.assert_close(ours.image, theirs.image_embeds, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.text, theirs.text_embeds, rtol=0, atol=1e-5)
    logits = ours.scale * ours.image @ ours.text.T + (0.0 if ours.bias is None else ours.bias)
    torch.testing.assert_close(logits, theirs.logits_per_image, rtol=1e-5, atol=1e-5)
    value = loss(ours.image, ours.text, ours.scale, ours.bias)
    torch.testing.assert_close(value, theirs.loss, rtol=1e-5, atol=1e-5)

    value.backward()
    theirs.loss.backward()
    wanted = from_transformers({name: p.grad for name, p in reference.named_parameters()})
    got = {name: p.grad for name, p in net.named_parameters()}
    assert set(got) - set(wanted) <= {"image_projection.weight", "image_projection.bias"}
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_wrong_vocabulary_is_refused():
    with pytest.raises(ValueError, match="vocabulary has 51"):
        untrained(sizes_of(CLIPConfig(text_config=TEXT, vision_config=VISION)), vocab_size=51)
