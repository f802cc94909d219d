"""Gradient checkpointing and compilation of all blocks: equal losses and gradients, less kept, what is refused."""

import copy
from functools import partial

from alignlab.losses.contrastive import InfoNce
from alignlab.models.albef import Albef, AlbefEncoder
from alignlab.models.block_settings import checkpoint_blocks, compile_blocks
from alignlab.models.clip import Clip
from alignlab.models.text import TextTower
from alignlab.models.vision import vision_transformer
from alignlab.optim.adamw import adamw
from recorder import fit
from tiny_training import albef_system, clip_system, pairs

import pytest
import torch
from torch import nn

VISION = partial(vision_transformer, image_size=16, patch_size=4, width=16, depth=3, heads=2)
TEXT = partial(TextTower, context_length=7, width=16, depth=3, heads=2)
ENCODER = partial(AlbefEncoder, VISION, text_width=16, heads=2, text_layers=2, fusion_layers=2, embed_dim=8)
OPTIM = partial(adamw, lr=1e-3)


def make_system(kind: str, dropout: float = 0.1, **settings):
    """ALBEF has dropout, whose numbers must be drawn again where activations are computed again."""
    torch.manual_seed(0)
    if kind == "clip":
        return clip_system(partial(Clip, VISION, TEXT, embed_dim=8), InfoNce(), OPTIM, **settings)
    net = partial(Albef, partial(ENCODER, dropout=dropout, attention_dropout=dropout))
    return albef_system(net, OPTIM, queue_size=8, **settings)


def trained(kind: str, **settings) -> tuple[list[float], dict[str, torch.Tensor]]:
    system = make_system(kind, **settings)
    torch.manual_seed(1)
    losses = fit(system, 3, [pairs(8), pairs(5, 1)])[1]
    return losses, system.state_dict()


@pytest.mark.parametrize("kind", ["clip", "albef"])
def test_checkpointing_changes_nothing(kind):
    assert_equal = partial(torch.testing.assert_close, rtol=0, atol=0)
    assert_equal(trained(kind, gradient_checkpointing=True), trained(kind))


@pytest.mark.parametrize("kind", ["clip", "albef"])
def test_checkpointing_keeps_less(kind):
    kept = []
    for on in (False, True):
        system = make_system(kind, gradient_checkpointing=on)
        system.configure_model()
        sizes: dict[int, int] = {}

        def pack(x, sizes=sizes):
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        own = {p.untyped_storage().data_ptr() for p in system.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            net, batch = system.net, pairs(32)
            image, text = net.encode_image(batch.image), net.encode_text(batch.ids, batch.mask)
            keep = image, text  # noqa: F841  the graph
        kept.append(sum(size for where, size in sizes.items() if where not in own))
    assert kept[1] < 0.4 * kept[0], kept


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_named_towers_are_switched_too(name):
    tower = vision_transformer(image_size=32 if "resnet" in name else 224, name=name)
    checkpoint_blocks(tower)
    assert tower.gradient_checkpointing
    switches = [getattr(m, "grad_checkpointing", False) for m in tower.trunk.modules()]
    assert any(switches) or tower._plain  # plain ones are run, and checkpointed, by the tower


@pytest.mark.slow  # the compiler takes a minute or two
@pytest.mark.parametrize("kind", ["clip", "albef"])
def test_compiled_blocks_give_the_same_and_keep_their_names(kind):
    found, wanted = trained(kind, compile={"backend": "aot_eager"}), trained(kind)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_blocks_are_really_compiled_once_a_class_and_copies_use_their_own_weights():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    tower = TEXT(vocab_size=9)
    ids, mask = torch.ones(2, 5, dtype=torch.int64), torch.ones(2, 5, dtype=torch.bool)
    wanted = tower(ids, mask)
    compile_blocks(tower, {"backend": backend})
    torch.testing.assert_close(tower(ids, mask), wanted, rtol=1e-6, atol=1e-6)
    assert len(graphs) == 2  # forward of the first two blocks, for_one of the last
    twin = copy.deepcopy(tower)
    for p in tower.parameters():
        p.data.zero_()
    torch.testing.assert_close(twin(ids, mask), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["clip", "albef"])
def test_compiled_by_inductor_too(kind):
    found, wanted = (trained(kind, dropout=0.0, compile=on) for on in (True, False))  # inductor draws others
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-5, atol=1e-6)
    assert found[1].keys() == wanted[1].keys()


@pytest.mark.parametrize(
    ("net", "options", "message"),
    [
        (TEXT(vocab_size=9), {"mode": "fastest"}, "torch.compile refuses it"),
        (TEXT(vocab_size=9), {"speed": 3}, "torch.compile refuses it"),
        (nn.Linear(2, 2), True, "Linear has no blocks"),
        (nn.ModuleDict({"vision": vision_transformer(image_size=32, name="resnet18")}), True, "vision has no blocks"),
    ],
)
def test_what_cannot_be_compiled_is_refused(net, options, message):
    with pytest.raises(ValueError, match=message):
        compile_blocks(net, options)


def test_without_a_compiler_it_is_refused(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"needs a C\+\+ compiler"):
        compile_blocks(TEXT(vocab_size=9))


def test_nothing_to_checkpoint_is_refused():
    with pytest.raises(ValueError, match="Linear has no blocks to run again"):
        checkpoint_blocks(nn.Linear(2, 2))
