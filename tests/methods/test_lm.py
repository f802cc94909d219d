"""LmMethod: the loss by hand with all that may be added, prefixes, packing, a mixture, what validation leaves alone, export."""

from functools import partial
from pathlib import Path

from alignlab.data.language.batches import TokenStore
from alignlab.data.language.batches import token_batch as batch_of
from alignlab.data.language.pretraining.decimal_addition import DecimalAddition
from alignlab.data.language.rendering import Rendered
from alignlab.losses.token_terms import token_terms
from alignlab.methods.language_models.answering import answered
from alignlab.methods.lm import LmMethod, prefix_of
from alignlab.methods.sft import SftMethod
from alignlab.models.language.decoder.building import decoder
from alignlab.models.language.loading import load_language_model
from alignlab.systems.choosing import system_of
from alignlab.types.language import TokenBatch
from tiny_language import NET, WORDS, loop, token_batch, validated

import pytest
import torch
import torch.nn.functional as F

OURS = partial(decoder, width=32, depth=2, heads=4, kv_heads=2, context_length=64)


def make(net=OURS, **settings) -> LmMethod:
    torch.manual_seed(0)
    return LmMethod(net, vocabulary=WORDS, **settings)


def packed() -> TokenBatch:
    torch.manual_seed(1)
    store = TokenStore([Rendered(torch.randint(3, 50, (n,)).tolist(), [i > 2 for i in range(n)]) for n in (7, 5, 6, 8)])
    return batch_of(store, [[0, 1], [2, 3]])


@pytest.mark.parametrize("net", [OURS, NET], ids=["ours", "transformers"])
def test_the_loss_is_cross_entropy_with_z_loss(net) -> None:
    method, batch = make(net, z_loss=0.01, accuracy=True), token_batch([9, 6, 4])
    output = method(batch)
    logits = method.net.logits(batch.ids) if net is OURS else method.net(batch.ids).logits
    seen = batch.document[:, 1:] > 0
    logits, labels = logits[:, :-1][seen], batch.ids[:, 1:][seen]
    entropy, squared = F.cross_entropy(logits, labels), logits.logsumexp(-1).square().mean()
    torch.testing.assert_close(output.loss, entropy + 0.01 * squared, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(output.metrics["cross_entropy"], entropy, rtol=1e-5, atol=1e-6)
    assert output.metrics["accuracy"] == (logits.argmax(-1) == labels).float().mean()


@pytest.mark.parametrize("chunk", [None, 3])
def test_terms_and_their_gradients_are_autograds(chunk: int | None) -> None:
    torch.manual_seed(0)
    hidden, labels = torch.randn(8, 5, dtype=torch.double, requires_grad=True), torch.randint(7, (8,))
    head, weight = torch.nn.Linear(5, 7, bias=False).double(), torch.randn(2, 8, dtype=torch.double)
    terms = token_terms(hidden, head, labels, chunk=chunk)
    logits = head(hidden)
    wanted = logits.log_softmax(-1).gather(1, labels[:, None]).squeeze(1), logits.logsumexp(-1)
    inputs = (hidden, head.weight)
    found = torch.autograd.grad((weight[0] * terms.log_prob + weight[1] * terms.log_z).sum(), inputs)
    other = torch.autograd.grad((weight[0] * wanted[0] + weight[1] * wanted[1]).sum(), inputs)
    for one, two in zip((*terms[:2], *found), (*wanted, *other), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("settings", [{}, {"position": "alibi"}, {"mask": "prefix"}, {"experts": 3}], ids=str)
def test_packed_texts_have_the_loss_of_texts_alone(settings: dict) -> None:
    method = make(partial(OURS, **settings), balance=0.0)
    together, found = packed(), []
    for row in range(2):
        for number in (1, 2):
            columns = (together.document[row] == number).nonzero().squeeze(1)
            ids, place = together.ids[row : row + 1, columns], together.position[row : row + 1, columns]
            alone = TokenBatch(ids, torch.ones_like(ids), place, torch.arange(3, len(columns)), False)
            found.append(method(alone).loss * len(alone.target))
    wanted = torch.stack(found).sum() / len(together.target)
    torch.testing.assert_close(method(together).loss, wanted, rtol=1e-5, atol=1e-6)


def test_a_prefix_is_what_stands_before_the_first_predicted_token() -> None:
    batch = packed()
    assert torch.equal(prefix_of(batch) & (batch.document > 0), (batch.position < 3) & (batch.document > 0))


def test_only_the_embeddings_gradient_shrinks() -> None:
    batch, gradients = token_batch([9, 6]), []
    for factor in (1.0, 0.1):
        method = make(partial(OURS, tie_embeddings=False), embedding_gradient=factor)
        method(batch).loss.backward()
        gradients.append({name: p.grad for name, p in method.net.named_parameters()})
    for name, whole in gradients[0].items():
        wanted = whole * 0.1 if name == "embedding.weight" else whole
        torch.testing.assert_close(gradients[1][name], wanted, rtol=1e-4, atol=1e-7, msg=name)


def test_a_mixture_is_pushed_towards_balance() -> None:
    method, batch = make(partial(OURS, experts=4), balance=1.0), token_batch([30, 30], 3)
    with torch.no_grad():
        for layer in method.net.layers:
            layer.mlp.router.weight.mul_(1000)
    before = method(batch).metrics["expert_imbalance"].item()
    optimizer = torch.optim.AdamW([layer.mlp.router.weight for layer in method.net.layers], lr=1.0)
    for _ in range(60):
        method(batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    after = method(batch).metrics["expert_imbalance"].item()
    assert before > 1.15 and 0.95 < after < 1.1


def test_it_overfits_a_batch_and_every_parameter_learns() -> None:
    losses, _ = loop(make(z_loss=1e-4), token_batch([8, 6, 7]), 60)
    assert losses[-1] < 0.4 * losses[0]


def test_validation_is_the_mean_over_tokens_and_changes_nothing() -> None:
    system = system_of(partial(LmMethod, OURS, z_loss=0.1), vocabulary=WORDS, optim=None)
    system.configure_model()
    batches = [token_batch([9, 3, 4]), token_batch([2], 1)]
    before = {name: value.clone() for name, value in system.state_dict().items()}
    found = validated(system, batches)
    terms = [system.method._terms(batch)[0] for batch in batches]
    log_probs = torch.cat([each.log_prob for each in terms])
    assert found["val/loss"] == pytest.approx(-log_probs.mean().item(), rel=1e-5)
    assert found["val/perplexity"] == pytest.approx(log_probs.mean().neg().exp().item(), rel=1e-5)
    assert found["val/accuracy"] == pytest.approx(torch.cat([each.right for each in terms]).float().mean().item())
    assert all(torch.equal(before[name], value) for name, value in system.state_dict().items())


def test_what_it_exports_is_what_sft_goes_on_from(tmp_path: Path) -> None:
    method, batch = make(), token_batch([8, 6])
    method.export(tmp_path)
    again = SftMethod(lambda vocabulary: load_language_model(str(tmp_path)), vocabulary=WORDS)
    torch.testing.assert_close(again.log_probs(batch), method._terms(batch)[0].log_prob, rtol=1e-5, atol=1e-5)
    assert method.cannot_export is None
    assert "mask=prefix" in make(partial(OURS, mask="prefix")).cannot_export


def test_items_are_answered_greedily_and_in_their_order() -> None:
    """A net that was taught one answer gives it, and its log-probability; the other items' are those of a pass each."""
    source = DecimalAddition(digits=1, examples=20, num_items=6, split_seed=0, val_share=0.4)
    tokenizer = source.tokenizer(0)
    torch.manual_seed(0)
    words = WORDS._replace(size=len(tokenizer))
    net = OURS(vocabulary=words)
    target = source.items[2]
    ids = torch.tensor([[*tokenizer.encode(target.prompt + target.target), tokenizer.eos_token_id]])
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for _ in range(30):
        F.cross_entropy(net.logits(ids)[0, :-1], ids[0, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()
    rows = answered(net, source.items, tokenizer)
    assert [row["id"] for row in rows] == [item.id for item in source.items]
    assert rows[2]["correct"] and rows[2]["prediction"] == target.target and min(rows[2]["target_logprobs"]) > -0.1
    for row, item in zip(rows, source.items, strict=True):
        whole = torch.tensor([tokenizer.encode(item.prompt + item.target)])
        log_probs = net.logits(whole)[0].log_softmax(-1)[:-1].gather(1, whole[0, 1:, None])[-len(item.target) :, 0]
        assert row["target_logprobs"] == pytest.approx(log_probs.tolist(), abs=1e-5)
        assert row["correct"] == (row["prediction"] == item.target)


@pytest.mark.parametrize(("key", "value"), [("z_loss", -1), ("balance", -0.1), ("embedding_gradient", 0)])
def test_weights_outside_their_limits_are_refused(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{key} is {value}; it must"):
        make(**{key: value})
