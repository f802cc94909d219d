"""Chunked heads against plain logits: values, gradients, chunk sizes."""

from alignlab.losses.chunked_head import chunk_size, token_loss, token_statistics

import pytest
import torch
from torch.testing import assert_close

N, D, V = 37, 12, 50


def inputs(bias: bool = True) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    leaf = lambda *shape: torch.randn(*shape, generator=g).requires_grad_()  # noqa: E731
    return leaf(N, D), leaf(V, D), leaf(V) if bias else None, torch.randint(V, (N,), generator=g)


def plain(hidden, weight, bias, ids, temperature):
    log_p = torch.log_softmax(torch.nn.functional.linear(hidden, weight, bias) / temperature, 1)
    return log_p.gather(1, ids[:, None])[:, 0], -(log_p.exp() * log_p).sum(1)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("chunk", [5, 16, 1000])
def test_statistics_and_their_gradients(temperature: float, chunk: int) -> None:
    hidden, weight, bias, ids = inputs()
    a, b = torch.randn(2, N, generator=torch.Generator().manual_seed(1))
    wanted = plain(hidden, weight, bias, ids, temperature)
    wanted_gradients = torch.autograd.grad((a * wanted[0] + b * wanted[1]).sum(), (hidden, weight, bias))
    found = token_statistics(hidden, weight, ids, bias=bias, temperature=temperature, entropy=True, chunk=chunk)
    assert_close(found.logprob, wanted[0], rtol=1e-5, atol=1e-5)
    assert_close(found.entropy, wanted[1], rtol=1e-5, atol=1e-5)
    gradients = torch.autograd.grad((a * found.logprob + b * found.entropy).sum(), (hidden, weight, bias))
    for one, other in zip(gradients, wanted_gradients, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        again = token_statistics(hidden, weight, ids, bias=bias, temperature=temperature, entropy=True, chunk=chunk)
    assert torch.equal(again.logprob, found.logprob)


@pytest.mark.parametrize("entropy", [False, True])
def test_a_loss_in_one_pass(entropy: bool) -> None:
    hidden, weight, bias, ids = inputs()
    factor = torch.randn(N, generator=torch.Generator().manual_seed(1))

    def loss(logprob, h, part):
        value = (factor[part] * (logprob * 1.3).exp()).sum()
        return value + (0.1 * h.square()).sum() if h is not None else value

    logprob, h = plain(hidden, weight, bias, ids, 0.7)
    wanted = loss(logprob, h if entropy else None, slice(None))
    wanted_gradients = torch.autograd.grad(2 * wanted, (hidden, weight, bias))
    found = token_loss(hidden, weight, ids, loss, bias=bias, temperature=0.7, entropy=entropy, chunk=8)
    assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    for one, other in zip(torch.autograd.grad(2 * found, (hidden, weight, bias)), wanted_gradients, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_frozen_head_gets_no_gradient_and_hidden_states_do() -> None:
    hidden, weight, _, ids = inputs(bias=False)
    weight = weight.detach()
    token_loss(hidden, weight, ids, lambda logprob, _, part: logprob.sum(), chunk=8).backward()
    assert weight.grad is None and hidden.grad.abs().sum() > 0


def test_no_token_at_all() -> None:
    hidden, weight, _, _ = inputs(bias=False)
    none = torch.zeros(0, dtype=torch.int64)
    assert token_statistics(hidden[:0].detach(), weight.detach(), none, entropy=True).entropy.shape == (0,)
    assert token_loss(hidden[:0], weight, none, lambda logprob, _, part: logprob.sum()).item() == 0.0


def test_chunk_size() -> None:
    assert chunk_size(32_000) == 256 and chunk_size(10_000_000) == 16
