"""Chunked log-probabilities equal whole ones; the loss counts tokens."""

from alignlab.losses.language_modelling import next_token_loss, token_log_probs

import torch
from torch import nn


def test_chunked_equals_whole_in_value_and_gradient():
    torch.manual_seed(0)
    head, labels = nn.Linear(8, 50, bias=False).double(), torch.randint(50, (23,))
    hidden = torch.randn(23, 8, dtype=torch.float64)
    wanted = torch.log_softmax(hidden @ head.weight.T / 0.7, -1)[torch.arange(23), labels]
    results = []
    for chunk in (None, 4, 23, 1):
        h = hidden.clone().requires_grad_()
        head.zero_grad()
        found = token_log_probs(h, head, labels, temperature=0.7, chunk=chunk)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
        next_token_loss(found).backward()
        results.append((h.grad, head.weight.grad.clone()))
    for gradients in results[1:]:
        for one, other in zip(gradients, results[0], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_no_more_than_a_chunk_of_logits_exists():
    seen = []

    class Watched(nn.Linear):
        def forward(self, x):
            seen.append(len(x))
            return super().forward(x)

    hidden = torch.randn(20, 4, requires_grad=True)
    token_log_probs(hidden, Watched(4, 9), torch.zeros(20, dtype=torch.long), chunk=6).sum().backward()
    assert max(seen) == 6 and sum(seen) == 40  # once forward, once in the backward pass


def test_the_loss_of_nothing_is_zero_and_bf16_states_give_float32():
    assert next_token_loss(torch.zeros(0)) == 0
    found = token_log_probs(torch.randn(3, 4).bfloat16(), nn.Linear(4, 9).bfloat16(), torch.tensor([0, 1, 2]))
    assert found.dtype == torch.float32
