"""Frozen 8-bit layers: their product and gradient, what the backward pass keeps, LoRA on top, which layers become such."""

from alignlab.inference.backend import ModelSource, Request, Sampling
from alignlab.inference.backends.compiled import CompiledBackend
from alignlab.inference.backends.transformers import TransformersBackend
from alignlab.methods.language_models.export import build_net
from alignlab.models.language.int8_linear import FrozenInt8Linear, quantize_blocks
from alignlab.models.language.lora import add_lora
from alignlab.models.language.trunk import hidden_states
from tiny_language import NET, WORDS, texts

import pytest
import torch
from torch import nn
from torch.testing import assert_close


def pair(bias: bool = True) -> tuple[nn.Linear, FrozenInt8Linear]:
    """A layer whose weights are multiples of its scales, so that rounding changes nothing, and its 8-bit form."""
    torch.manual_seed(0)
    plain = nn.Linear(48, 32, bias=bias)
    q = torch.randint(-127, 128, (32, 48)).float()
    q[:, 0] = 127
    plain.weight.data = q * torch.rand(32, 1) / 127
    plain.requires_grad_(False)
    return plain, FrozenInt8Linear(plain)


@pytest.mark.parametrize("bias", [True, False])
def test_product_and_gradient(bias: bool) -> None:
    plain, packed = pair(bias)
    xs = [torch.randn(3, 5, 48, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2)]
    ys = [layer(x) for layer, x in zip((plain, packed), xs, strict=True)]
    assert_close(ys[1], ys[0], rtol=1e-5, atol=1e-5)
    for y in ys:
        y.square().sum().backward()
    assert_close(xs[1].grad, xs[0].grad, rtol=1e-5, atol=1e-4)
    assert packed.weight.dtype == torch.int8 and not any(p.requires_grad for p in packed.parameters())


def test_the_backward_pass_keeps_no_weights_in_floating_point() -> None:
    _, packed = pair()
    kept: list[torch.Tensor] = []
    x = torch.randn(4, 48, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        packed(x * 2).sum()
    assert any(t.shape == (32, 48) for t in kept)
    assert all(t.dtype == torch.int8 for t in kept if t.shape == (32, 48))


def test_bfloat16_under_autocast() -> None:
    plain, packed = pair()
    x = torch.randn(4, 48, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = packed(x)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert x.grad.dtype == torch.float32
    assert_close(x.grad, plain.weight.sum(0).expand(4, -1), rtol=2e-2, atol=2e-2)


def adapted() -> nn.Module:
    torch.manual_seed(0)
    model = NET(vocabulary=WORDS).eval()
    quantize_blocks(model)
    model = add_lora(model, rank=4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model


def test_an_adapter_on_top_learns_and_nothing_else() -> None:
    model, (ids, _) = adapted(), texts([7, 5])
    assert model.get_output_embeddings().weight.is_floating_point()
    hidden_states(model, ids).square().sum().backward()
    learned = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert learned == {name for name, _ in model.named_parameters() if "lora_" in name}
    assert sum(p.dtype == torch.int8 for p in model.parameters()) == 14  # 2 layers of 7


def test_our_loop_generates_from_the_live_8_bit_weights() -> None:
    model = adapted()
    greedy = Sampling(6, temperature=0.0, ignore_eos=True)
    requests = [Request(ids.tolist(), sampling=greedy) for ids in texts([7, 7])[0]]
    found = []
    for backend in (TransformersBackend(), CompiledBackend()):
        backend.load(ModelSource("policy", dtype="float32", model=model))
        backend.set_adapter("policy") if hasattr(backend, "set_adapter") else None
        found.append(list(backend.generate(requests)))
    assert [done.ids for done in found[0]] == [done.ids for done in found[1]]
    for one, other in zip(*found, strict=True):
        assert_close(torch.tensor(one.logprobs), torch.tensor(other.logprobs), rtol=1e-4, atol=1e-4)


def test_a_model_without_linear_layers_is_refused() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=20))
    with pytest.raises(ValueError, match="GPT2LMHeadModel has no linear layers"):
        quantize_blocks(model)


def test_without_an_adapter_there_is_nothing_to_train() -> None:
    def packed(vocabulary: object) -> nn.Module:
        model = NET(vocabulary=vocabulary)
        quantize_blocks(model)
        return model

    with pytest.raises(ValueError, match="add an adapter, peft=lora"):
        build_net(packed, None, WORDS)
