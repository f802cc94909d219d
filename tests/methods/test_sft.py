"""SftMethod: the loss is the model's own, packing and rows don't matter, it learns, resumes bit for bit, exports."""

from functools import partial

from alignlab.data.language.batches import TokenStore
from alignlab.data.language.batches import token_batch as batch_of
from alignlab.data.language.rendering import Rendered
from alignlab.methods.sft import SftMethod
from alignlab.models.language.loading import load_language_model
from alignlab.models.language.lora import add_lora
from alignlab.systems.choosing import system_of
from alignlab.systems.method_system import MethodSystem
from tiny_language import NET, OPTIM, WORDS, fit, token_batch, validated

import pytest
import torch


def make(**settings) -> MethodSystem:
    torch.manual_seed(0)
    return system_of(partial(SftMethod, NET, **settings), vocabulary=WORDS, optim=OPTIM)


def test_the_loss_is_that_of_transformers():
    system, batch = make(), token_batch([9, 6, 4])
    system.configure_model()
    labels = batch.ids.masked_fill(batch.document == 0, -100)
    wanted = system.net(batch.ids, attention_mask=(batch.document > 0).long(), labels=labels).loss
    torch.testing.assert_close(-system.log_probs(batch).mean(), wanted, rtol=1e-5, atol=1e-6)


def test_packed_equals_unpacked_in_loss_and_gradient():
    torch.manual_seed(1)
    store = TokenStore([Rendered(torch.randint(3, 50, (n,)).tolist(), [i > 1 for i in range(n)]) for n in (7, 5, 6, 4)])
    results = []
    for rows in ([[0], [1], [2], [3]], [[0, 1], [2, 3]], [[3, 0, 2, 1]]):
        system, batch = make(), batch_of(store, rows)
        system.configure_model()
        loss = -system.log_probs(batch).mean()
        loss.backward()
        results.append((loss.detach(), {n: p.grad for n, p in system.net.named_parameters()}))
    for loss, gradients in results[1:]:
        torch.testing.assert_close(loss, results[0][0], rtol=1e-5, atol=1e-6)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, results[0][1][name], rtol=1e-3, atol=1e-6, msg=name)


def test_it_overfits_a_batch_and_every_parameter_learns():
    system = make()
    losses = fit(system, 60, [token_batch([8, 6, 7])])
    assert losses[-1] < 0.4 * losses[0]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in system.net.parameters())


def test_validation_is_the_mean_over_tokens_and_changes_nothing():
    system, batches = make(), [token_batch([9, 3, 4]), token_batch([2], 1)]
    system.configure_model()
    before = {name: value.clone() for name, value in system.state_dict().items()}
    found = validated(system, batches)
    log_probs = torch.cat([system.log_probs(batch) for batch in batches])
    assert found["val/loss"] == pytest.approx(-log_probs.mean().item(), rel=1e-5)
    assert found["val/perplexity"] == pytest.approx(log_probs.mean().neg().exp().item(), rel=1e-5)
    assert all(torch.equal(before[name], value) for name, value in system.state_dict().items())


def test_lora_trains_the_adapter_alone_and_its_export_speaks_the_same(tmp_path):
    pytest.importorskip("peft")
    system, batch = make(peft=partial(add_lora, rank=4)), token_batch([8, 6])
    losses = fit(system, 40, [batch])
    assert losses[-1] < losses[0] - 0.05
    assert all(p.requires_grad == ("lora_" in n) for n, p in system.net.named_parameters())
    system.eval()
    wanted = system.log_probs(batch)
    system.export(tmp_path)  # from nothing: there is no base to name, the whole is merged
    again = SftMethod(lambda vocabulary: load_language_model(str(tmp_path)), vocabulary=WORDS)
    torch.testing.assert_close(again.log_probs(batch), wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(system.log_probs(batch), wanted, rtol=1e-4, atol=1e-5)
