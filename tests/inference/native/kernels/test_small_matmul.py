"""Compiled products of few rows against torch's, for every row count and for widths that are no multiple of a vector."""

from alignlab.inference.native.kernels.compiling import library
from alignlab.inference.native.kernels.small_matmul import MOST_ROWS, SmallMatmul
from alignlab.inference.native.linears import FastLinear

import pytest
import torch

pytestmark = pytest.mark.skipif(library() is None, reason="needs a C compiler")


@pytest.mark.parametrize("rows", range(1, MOST_ROWS + 1))
@pytest.mark.parametrize(("outputs", "inputs"), [(33, 70), (5, 31), (64, 128)])
def test_products(rows: int, outputs: int, inputs: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    x, weight = torch.randn(rows, inputs, generator=generator), torch.randn(outputs, inputs, generator=generator)
    bias = torch.randn(outputs, generator=generator)
    assert torch.allclose(SmallMatmul(weight, bias=bias)(x), x @ weight.t() + bias, rtol=1e-5, atol=1e-4)
    half = weight.bfloat16()
    found = SmallMatmul(half, bias=bias.bfloat16())(x.bfloat16())
    exact = x.bfloat16().float() @ half.float().t() + bias.bfloat16().float()
    assert found.dtype == torch.bfloat16 and torch.allclose(found.float(), exact, rtol=2**-8, atol=1e-4)
    q, scale = torch.randint(-127, 128, weight.shape, generator=generator).to(torch.int8), torch.rand(outputs)
    expected = x @ (q.float() * scale[:, None]).t() + bias
    assert torch.allclose(SmallMatmul(q, scale, bias)(x), expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("rows", [1, 3, 16])
def test_integer_products_are_exact_but_for_the_rounding_of_x(rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, 70, generator=generator)
    q, scale = torch.randint(-127, 128, (33, 70), generator=generator).to(torch.int8), torch.rand(33)
    steps = x.abs().amax(1, keepdim=True) / 127
    rounded = (x / steps).round()
    found = SmallMatmul(q, scale, rounded=True)(x)
    exact = (rounded.double() @ q.double().t()) * steps * scale
    assert torch.allclose(
        found.double(), exact, rtol=1e-5, atol=2 * float((steps * 127 * scale).max())
    )  # a tie may round either way
    closest = (found.double() - exact).abs() < 1e-3
    assert closest.float().mean() > 0.9


def test_without_a_compiler_torch_takes_over(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    weight, x = torch.randn(8, 16), torch.randn(2, 16)
    monkeypatch.setenv("CC", "/nonexistent/compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library.cache_clear()
    try:
        assert library() is None
        assert torch.equal(FastLinear(weight)(x), x @ weight.t())
    finally:
        monkeypatch.undo()
        library.cache_clear()
