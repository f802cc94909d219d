"""bfloat16, mixed and throughout: every pre-training method follows its float32 run and learns, with checkpointing too."""

from functools import partial

from alignlab.losses.contrastive import InfoNce, SigLip
from alignlab.models.albef import Albef, AlbefEncoder
from alignlab.models.clip import Clip
from alignlab.models.text import TextTower
from alignlab.models.vision import vision_transformer
from alignlab.optim.adamw import adamw
from recorder import fit
from tiny_training import albef_system, clip_system, pairs

import pytest
import torch

VISION = partial(vision_transformer, image_size=16, patch_size=8, width=32, depth=2, heads=2)
TEXT = partial(TextTower, context_length=7, width=32, depth=2, heads=2)
SIZES = {"text_width": 32, "heads": 2, "text_layers": 1, "fusion_layers": 1, "embed_dim": 16}
KINDS = ("clip", "siglip", "albef")


def make_system(kind: str, **settings):
    torch.manual_seed(0)
    settings["optim"] = partial(adamw, lr=3e-3)
    if kind == "albef":
        encoder = partial(AlbefEncoder, VISION, dropout=0.0, attention_dropout=0.0, **SIZES)
        return albef_system(partial(Albef, encoder), queue_size=8, alpha=0.0, **settings)
    bias = -10.0 if kind == "siglip" else None
    net = partial(Clip, VISION, TEXT, embed_dim=16, logit_bias=bias)
    return clip_system(net, SigLip() if bias else InfoNce(), **settings)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_follows_float32(kind):
    losses = {}
    for precision in ("32-true", "bf16-mixed", "bf16-true"):
        system = make_system(kind)
        system.configure_model()  # now, since within bf16-true it would draw its weights in bfloat16
        torch.manual_seed(1)  # ALBEF's masks
        losses[precision] = fit(system, 12, [pairs(8)], precision=precision)[1]
        dtypes = {p.dtype for p in system.net.parameters()}
        assert dtypes == {torch.bfloat16 if precision == "bf16-true" else torch.float32}
    for precision in ("bf16-mixed", "bf16-true"):
        assert losses[precision][0] == pytest.approx(losses["32-true"][0], rel=0.02)
        drops = {name: run[0] - sum(run[-3:]) / 3 for name, run in losses.items()}
        assert drops[precision] > 0.6 * drops["32-true"] > 0, drops


@pytest.mark.parametrize("kind", KINDS)
def test_checkpointing_is_exact_under_autocast(kind):
    runs = []
    for on in (False, True):
        system = make_system(kind, gradient_checkpointing=on)
        torch.manual_seed(1)
        runs.append(fit(system, 3, [pairs(8)], precision="bf16-mixed")[1])
    assert runs[0] == runs[1]
