"""The decoder: logits of transformers both ways, masks by an oracle, every parameter learns, what it refuses."""

from pathlib import Path

from alignlab.cost.flops import ModelFlops
from alignlab.models.language.decoder.building import decoder, pretrained_decoder
from alignlab.models.language.decoder.exchange import as_transformers, from_transformers, lacks
from alignlab.models.language.decoder.feed_forward import Mixture, balance
from alignlab.models.language.decoder.net import Decoder
from alignlab.models.language.decoder.positions import Seen, buckets, growth, rotate, rotations, with_distances
from alignlab.models.language.decoder.settings import NormPlace, Position
from tiny_language import WORDS, texts

import pytest
import torch

SMALL = {"width": 24, "depth": 2, "heads": 6, "context_length": 32}
GPT2 = {"norm": "layer", "activation": "gelu_tanh", "position": "learned", "bias": True}
BLOOM = GPT2 | {"position": "alibi", "embedding_norm": True}
FAMILIES = {
    "gpt2": GPT2,
    "gpt2_untied_relu": GPT2 | {"activation": "relu", "tie_embeddings": False, "mlp_width": 40},
    "bloom": BLOOM,
    "llama": {"kv_heads": 2},
    "llama_biased": {"bias": True, "activation": "geglu", "tie_embeddings": False, "rope_base": 500.0},
    "mixtral": {"kv_heads": 3, "experts": 4},
}


def make(**settings: object) -> Decoder:
    """A decoder whose every parameter is random, norms and biases too."""
    torch.manual_seed(0)
    net = decoder(**(SMALL | settings), vocabulary=WORDS)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return net.eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_those_of_transformers_both_ways(name: str) -> None:
    net = make(**FAMILIES[name])
    ids, mask = texts([14, 9, 11])
    model = as_transformers(net).eval()
    wanted = model(ids, attention_mask=mask.long()).logits[mask]
    torch.testing.assert_close(net.logits(ids)[mask], wanted, rtol=1e-5, atol=1e-5)
    again = from_transformers(model).eval()
    assert again.config == net.config
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in net.state_dict().items())
    assert model.config.model_type == name.split("_")[0]


def test_a_folder_that_transformers_wrote_becomes_a_decoder(tmp_path: Path) -> None:
    net = make(**FAMILIES["llama"])
    as_transformers(net).save_pretrained(tmp_path)
    again, ids = pretrained_decoder(str(tmp_path), vocabulary=WORDS).eval(), texts([9, 7])[0]
    torch.testing.assert_close(again.logits(ids), net.logits(ids))
    with pytest.raises(ValueError, match="has 60 ids"):
        pretrained_decoder(str(tmp_path), vocabulary=WORDS._replace(size=60))


@pytest.mark.parametrize("position", ["learned", "rope", "xpos", "alibi", "t5", "none"])
@pytest.mark.parametrize("mask", ["causal", "prefix"])
def test_packed_texts_equal_texts_alone(position: Position, mask: str) -> None:
    net = make(position=position, mask=mask, kv_heads=2)
    ids = texts([12])[0]
    places = torch.tensor([[*range(7), *range(5)]])
    document = torch.tensor([[1] * 7 + [2] * 5])
    prefix = (places < 3) if mask == "prefix" else None
    packed = net.logits(ids, document=document, position=places, prefix=prefix)
    for part in (slice(0, 7), slice(7, 12)):
        alone = net.logits(ids[:, part], prefix=None if prefix is None else prefix[:, part])
        torch.testing.assert_close(packed[:, part], alone, rtol=1e-5, atol=1e-5)


def test_a_prefix_sees_all_of_itself_and_nothing_behind_it() -> None:
    """By gradients: which tokens' embeddings each place depends on."""
    net, length, inside = make(mask="prefix", position="none"), 8, 3
    prefix = (torch.arange(length) < inside)[None]
    vectors = torch.randn(1, length, SMALL["width"], requires_grad=True)
    net.embedding.forward = lambda ids: vectors
    hidden = net(torch.zeros(1, length, dtype=torch.long), prefix=prefix).hidden
    for query in range(length):
        (gradient,) = torch.autograd.grad(hidden[0, query].square().sum(), vectors, retain_graph=True)
        seen = gradient[0].abs().sum(-1) > 0
        wanted = [key <= query or (key < inside) for key in range(length)]
        assert seen.tolist() == wanted, query


@pytest.mark.parametrize("both_ways", [False, True])
def test_distances_are_t5s(both_ways: bool) -> None:
    from transformers import T5Config
    from transformers.models.t5.modeling_t5 import T5Attention

    length, heads = 200, 6
    config = T5Config(d_model=24, num_heads=heads, d_kv=4, is_decoder=not both_ways)
    theirs = T5Attention(config, has_relative_attention_bias=True)
    wanted = theirs.compute_bias(length, length)
    table = theirs.relative_attention_bias.weight
    seen = torch.ones(length, length, dtype=torch.bool)
    assert torch.equal(with_distances(table, seen, length, both_ways, torch.float32), wanted)
    net = make(position="t5")
    net.logits(texts([32, 20])[0]).square().mean().backward()
    used = net.distances.weight.grad.abs().sum(1) > 0
    assert used.sum() == buckets(32, False, torch.device("cpu")).unique().numel()


def test_xpos_is_its_formula() -> None:
    """cos((n - m) theta_i) zeta_i^((n - m) / 512) in the sum over pairs (arXiv:2212.10554, eq. 6)."""
    width, length = 8, 700
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, length, 1, width, generator=generator, dtype=torch.float64)
    frequencies = 10000.0 ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    position = torch.arange(length)[None]
    turned = rotations(frequencies, position, torch.float64)
    grown = growth(position, width, length, torch.float64)
    ours = torch.einsum(
        "tc,sc->ts",
        *(rotate(x, Seen(None, *turned))[0, :, 0] * g[0, :, 0] for x, g in ((query, grown), (key, 1 / grown))),
    )
    pairs = [(x[0, :, 0, : width // 2] + 1j * x[0, :, 0, width // 2 :]) for x in (query, key)]
    zeta = (torch.arange(0, width, 2).double() / width + 0.4) / 1.4
    apart = (torch.arange(length)[:, None] - torch.arange(length)[None]).double()
    for n, m in ((5, 5), (699, 0), (300, 290), (0, 100)):
        turn = torch.exp(1j * apart[n, m] * frequencies) * zeta ** (apart[n, m] / 512)
        wanted = (pairs[0][n] * pairs[1][m].conj() * turn).real.sum()
        assert ours[n, m].item() == pytest.approx(wanted.item(), rel=1e-4, abs=1e-5)
    far = [(zeta ** (gap / 512)).prod().item() for gap in (0, 200, 600)]
    assert far[0] > far[1] > far[2]


@pytest.mark.parametrize("place", ["pre", "post", "sandwich", "deep"])
def test_every_parameter_gets_a_gradient(place: NormPlace) -> None:
    net = make(norm_place=place, norm="layer", bias=True, position="learned", embedding_norm=True, activation="geglu")
    net.logits(texts([32, 32])[0]).logsumexp(-1).square().mean().backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum()]


def test_activations_computed_again_give_the_same_gradient() -> None:
    gradients = []
    for again in (False, True):
        net = make(experts=3, gradient_checkpointing=again)
        out = net(texts([9, 6])[0])
        (out.hidden.square().mean() + out.balance).backward()
        gradients.append([parameter.grad for parameter in net.parameters() if parameter.grad is not None])
    assert len(gradients[0]) == len(gradients[1])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_the_balance_is_1_where_all_are_chosen_alike_and_e_where_one_is() -> None:
    alike, one = torch.full((8, 4), 0.25), torch.eye(4)[[2] * 8]
    turns = torch.arange(8)[:, None] % 4
    assert balance(alike, turns).item() == pytest.approx(1)
    assert balance(one, torch.full((8, 1), 2)).item() == pytest.approx(4)
    real = torch.arange(8) < 4  # the others choose expert 0 and don't count
    assert balance(alike, torch.where(real[:, None], turns, 0), real).item() == pytest.approx(1)


def test_experts_are_the_same_as_grouped_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU runs, on the CPU: values, gradients, FLOPs; an expert that nobody chooses too."""
    results = []
    for grouped in (False, True):
        net = make(experts=4, width=32, heads=4, mlp_width=64)
        with torch.no_grad():
            net.layers[0].mlp.router.weight[3] = 0
            net.layers[0].mlp.router.weight[:3] = 1
        if grouped:
            monkeypatch.setattr(Mixture, "_products", Mixture.grouped)
        ids = texts([9, 14])[0]
        with ModelFlops() as counted:
            loss = net.logits(ids).square().mean()
            loss.backward()
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        results.append((loss.detach(), gradients, counted.get_total_flops()))
    (one, first, flops), (two, second, again) = results
    torch.testing.assert_close(one, two)
    assert flops == again and len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_deepnorm_is_a_scaled_residual() -> None:
    net, ids = make(norm_place="deep", depth=1, position="none"), texts([5])[0]
    x, layer = net.embedding(ids), net.layers[0]
    scale = 2**0.25
    x = layer.norm1(scale * x + layer._attend(x, Seen(None)))
    wanted = layer.norm2(scale * x + layer.mlp(x)[0])
    torch.testing.assert_close(net(ids).hidden, wanted)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"norm": "batch"}, "norm=batch is none of layer, rms"),
        ({"width": 25}, "width=25 must be a multiple of heads=6"),
        ({"width": 18}, "even multiple"),
        ({"kv_heads": 4}, "kv_heads=4 must divide heads=6"),
        ({"experts": 2, "experts_per_token": 3}, "experts_per_token is 3; it must be 1 to experts=2"),
        ({"experts": 2, "bias": True}, "set bias=false"),
        ({"base_width": 10}, "base_width=10 must be a multiple of heads=6"),
        ({"base_width": 12, "base_heads": 5}, "base_width=12 must be a multiple of base_heads=5"),
        ({"base_heads": 2}, "base_heads=2 means nothing without base_width"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make(**settings)


def test_what_transformers_lacks_is_said_in_one_line() -> None:
    net = make(mask="prefix", norm_place="deep")
    assert lacks(net.config) == (
        "no model of transformers is told by these settings; the nearest, llama, has no norm_place=deep, no mask=prefix"
    )
    with pytest.raises(ValueError, match="nearest, llama"):
        as_transformers(net)
    assert lacks(make().config) is None
    for position in ("t5", "xpos"):
        assert f"has no position={position}" in lacks(make(position=position).config)
