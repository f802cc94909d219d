"""Attention in bfloat16 on a CPU avoids the fused kernel and stays as exact."""

from alignlab.models.attention import attend

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor


@pytest.mark.parametrize("kind", ["plain", "mask", "additive", "causal"])
def test_bfloat16_on_a_cpu_is_as_near_to_float64_as_the_fused_kernel(kind: str):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 7, 16).bfloat16().requires_grad_().unbind()
    keep = torch.rand(2, 1, 1, 7) > 0.3
    keep[..., 0] = True
    additive = torch.zeros(keep.shape, dtype=torch.bfloat16).masked_fill(~keep, torch.finfo(torch.bfloat16).min)
    mask, causal = {"mask": keep, "additive": additive}.get(kind), kind == "causal"
    wide = None if mask is None else mask if mask.dtype == torch.bool else mask.double()
    exact = F.scaled_dot_product_attention(
        query.double(), key.double(), value.double(), attn_mask=wide, is_causal=causal
    )
    weight = torch.randn_like(exact)

    def gradients(y: Tensor) -> list[Tensor]:
        return [
            g.double() for g in torch.autograd.grad((y.double() * weight).sum(), (query, key, value), retain_graph=True)
        ]

    ours = attend(query, key, value, mask=mask, causal=causal)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.double(), exact, atol=0.03, rtol=0)  # bfloat16 has 8 bits
    for mine, other in zip(gradients(ours), gradients(exact), strict=True):
        torch.testing.assert_close(mine, other, atol=0.06, rtol=0)
