"""Int8 weights: rounding, both kinds of product, the whole backend against full precision."""

from pathlib import Path

from alignlab.inference.backend import ModelSource, Request, Sampling
from alignlab.inference.backends.compiled import CompiledBackend
from alignlab.inference.backends.int8 import Int8Backend
from alignlab.inference.native.quantization import (
    Int8Embedding,
    Int8Int8Linear,
    Int8Linear,
    int_product,
    quantize_outputs,
)
from tiny_models import ARCHITECTURES, PROMPTS, VOCABULARY, save_model, tiny_model

import pytest
import torch


def test_rounding_is_within_half_a_step() -> None:
    weight = torch.randn(70, 30) * torch.logspace(-3, 3, 70)[:, None]
    q, scale = quantize_outputs(weight)
    assert q.dtype == torch.int8 and q.abs().max() == 127
    assert ((q.float() * scale[:, None] - weight).abs() <= 0.5001 * scale[:, None]).all()


@pytest.mark.parametrize("kind", [Int8Linear, Int8Int8Linear])
@pytest.mark.parametrize("rows", [1, 16, 40, 65])
def test_products(kind: type[Int8Linear], rows: int) -> None:
    """Few rows (compiled) and many (torch) give the same numbers."""
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(96, 64, generator=generator), torch.randn(rows, 64, generator=generator)
    bias = torch.randn(96, generator=generator)
    linear, exact = kind(weight, bias), x @ weight.t() + bias
    error = (linear(x) - exact).norm() / exact.norm()
    assert error < (0.01 if kind is Int8Linear else 0.015)
    together = kind(weight, bias)(x.repeat(40, 1))[:rows]
    assert torch.allclose(linear(x), together, rtol=0, atol=1e-3 if kind is Int8Linear else 0.15)


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 60, 97), (20, 64, 96), (17, 7, 8), (3, 8, 5)])
def test_integer_products_of_any_size(rows: int, inputs: int, outputs: int) -> None:
    """Filled up as CUDA wants them: more than 16 rows, the other sizes in multiples of 8."""
    x, weight = (torch.randint(-127, 128, (n, inputs), dtype=torch.int8) for n in (rows, outputs))
    assert torch.equal(int_product(x, weight), x.int() @ weight.int().t())


def test_embedding_is_the_rounded_matrix() -> None:
    weight = torch.randn(10, 8)
    head = Int8Linear(weight)
    embedding = Int8Embedding.of(weight, head)
    assert embedding.weight is head.weight  # tied: once in memory
    assert torch.allclose(embedding(torch.tensor([3, 7])), weight[[3, 7]], rtol=0, atol=float(head.scale.max()))


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("mode", ["weight_only", "w8a8"])
def test_backend(mode: str, kind: str, tmp_path: Path) -> None:
    folder = save_model(kind, tmp_path)
    exact, rounded = CompiledBackend(), Int8Backend(mode=mode)
    whole = exact.load(ModelSource(str(folder))).weight_bytes
    assert rounded.load(ModelSource(str(folder))).weight_bytes < 0.4 * whole
    expected, found = exact.score(PROMPTS), rounded.score(PROMPTS)
    differences = torch.cat([torch.tensor(a) - torch.tensor(b) for a, b in zip(expected, found, strict=True)])
    # the foil: matrices that are off by a fiftieth in each row; rounding to 8 bits is off by some 0.7 % of a row's deviation
    wrong = tiny_model(kind)
    with torch.no_grad():
        for parameter in wrong.parameters():
            parameter.mul_(1 + 0.02 * torch.randn(len(parameter), *[1] * (parameter.dim() - 1)))
    foil = CompiledBackend()
    foil.load(ModelSource("wrong", model=wrong))
    off = torch.cat([torch.tensor(a) - torch.tensor(b) for a, b in zip(expected, foil.score(PROMPTS), strict=True)])
    assert differences.norm() < (0.5 if mode == "weight_only" else 0.6) * off.norm()
    requests = [Request(prompt, sampling=Sampling(max_new_tokens=6)) for prompt in PROMPTS]
    for request, completion in zip(requests, rounded.generate(requests), strict=True):  # decoding agrees with scoring
        scores = rounded.score([request.ids + completion.ids])[0][len(request.ids) - 1 :]
        assert scores == pytest.approx(completion.logprobs, abs=2e-3 if mode == "weight_only" else 0.5)
    assert all(0 <= token < VOCABULARY for c in rounded.generate(requests) for token in c.ids)


def test_a_live_model_is_refused() -> None:
    with pytest.raises(ValueError, match="this one changes"):
        Int8Backend().load(ModelSource("", model=tiny_model("llama")))
