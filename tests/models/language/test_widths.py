"""`base_width`: what a step changes is as large at every width, the base is as without it, exports need none of it."""

from functools import partial

from alignlab.models.language.decoder.building import decoder
from alignlab.models.language.decoder.exchange import as_transformers, from_transformers
from alignlab.models.language.decoder.net import Decoder
from alignlab.optim.adamw import adamw
from alignlab.optim.muon import muon
from alignlab.optim.parameter_groups import parameter_groups
from tiny_language import WORDS, texts

import pytest
import torch
import torch.nn.functional as F

BASE, WIDE, STEPS = 32, 128, 4


def make(width: int, **settings: object) -> Decoder:
    torch.manual_seed(0)
    sizes = {"width": width, "depth": 2, "heads": 4, "context_length": 32}
    return decoder(**(sizes | settings), vocabulary=WORDS)


def changes(width: int, optimizer: object, **settings: object) -> torch.Tensor:
    """(3,) root mean squares of what a few steps change in both layers' outputs and in the logits."""
    net, ids = (
        make(width, **settings),
        torch.randint(3, WORDS.size, (8, 16), generator=torch.Generator().manual_seed(1)),
    )
    seen: list[torch.Tensor] = []
    for layer in net.layers:
        layer.register_forward_hook(lambda _, __, out: seen.append(out[0]))

    def outputs() -> list[torch.Tensor]:
        seen.clear()
        with torch.no_grad():
            logits = net.logits(ids)
        return [*seen, logits]

    before = outputs()
    steps = optimizer(net, total_steps=STEPS, schedule="constant")["optimizer"]
    for _ in range(STEPS):
        steps.zero_grad()
        F.cross_entropy(net.logits(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
        steps.step()
    return torch.stack([(new - old).square().mean().sqrt() for new, old in zip(outputs(), before, strict=True)])


OTHERS = {
    "learned": {"norm": "layer", "position": "learned", "bias": True, "activation": "gelu", "tie_embeddings": False},
    "sandwich": {"norm_place": "sandwich", "position": "t5", "kv_heads": 1},
    "mixture": {"experts": 3},
    "deep": {"norm_place": "deep", "mask": "prefix", "position": "alibi", "embedding_norm": True},
}


@pytest.mark.parametrize("optimizer", [partial(adamw, lr=0.01), partial(muon, lr=0.02)], ids=["adamw", "muon"])
@pytest.mark.parametrize("embedding", [1.0, 1e-3], ids=["all", "matrices"])
def test_what_a_step_changes_is_as_large_at_every_width(optimizer: partial, embedding: float) -> None:
    """The coordinate check of arXiv:2203.03466, appendix D.1; also of the hidden matrices alone."""
    optimizer = partial(optimizer, lr_multipliers={"embedding": embedding})
    base, plain = changes(BASE, optimizer), changes(WIDE, optimizer)
    based = changes(WIDE, optimizer, base_width=BASE)
    assert ((based / base).log().abs() < 0.4).all(), (base, based)
    assert (plain / base).max() > 2  # without it what is changed grows with the width
    assert torch.equal(changes(BASE, optimizer, base_width=BASE), base)


@pytest.mark.parametrize("name", OTHERS)
def test_so_with_other_settings(name: str) -> None:
    optimizer = partial(adamw, lr=0.01)
    base = changes(BASE, optimizer, **OTHERS[name])
    based = changes(WIDE, optimizer, base_width=BASE, **OTHERS[name])
    assert ((based / base).log().abs() < 0.4).all(), (base, based)


def test_heads_that_stay_as_wide_are_told_of_the_base() -> None:
    net = make(WIDE, heads=16, base_width=BASE, base_heads=4)
    assert net.config.query_scale == 1 and make(WIDE, base_width=BASE).config.query_scale == 0.5
    base = changes(BASE, partial(adamw, lr=0.01))
    based = changes(WIDE, partial(adamw, lr=0.01), heads=16, base_width=BASE, base_heads=4)
    assert ((based / base).log().abs() < 0.15).all(), (base, based)


def test_rates_and_decay_of_what_has_more_inputs_alone() -> None:
    net = make(WIDE, bias=True, experts=0, base_width=BASE)
    for power in (1.0, 0.5):
        groups = parameter_groups(torch.nn.ModuleList([net]), lr=0.1, weight_decay=0.2, width_power=power)
        of = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
        ratio = 4**power
        for name, parameter in net.named_parameters():
            inner = parameter.ndim > 1 and name.startswith("layers")
            rest = (0.1, 0.0)  # norms, biases, embeddings
            assert of[id(parameter)] == pytest.approx((0.1 / ratio, 0.2 * ratio) if inner else rest), name


@pytest.mark.parametrize(
    "settings",
    [
        {"norm": "layer", "activation": "gelu_tanh", "position": "learned", "bias": True},
        {"norm": "layer", "activation": "gelu_tanh", "position": "alibi", "bias": True, "embedding_norm": True},
        {"kv_heads": 2, "tie_embeddings": False},
        {"experts": 4},
    ],
    ids=["gpt2", "bloom", "llama", "mixtral"],
)
def test_an_export_has_it_in_its_weights(settings: dict) -> None:
    net = make(48, base_width=16, **settings).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    ids, mask = texts([14, 9, 11])
    model = as_transformers(net).eval()
    wanted = net.logits(ids)[mask]
    torch.testing.assert_close(model(ids, attention_mask=mask.long()).logits[mask], wanted, rtol=1e-5, atol=1e-5)
    again = from_transformers(model).eval()
    assert again.config.base_width is None
    torch.testing.assert_close(again.logits(ids)[mask], wanted, rtol=1e-5, atol=1e-5)
