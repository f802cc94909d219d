"""What vLLM's engine is given by a policy in training; and, where vLLM is installed (docs/inference.md), the engine itself."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from alignlab.inference.backend import ModelSource, Request, Sampling
from alignlab.inference.backends.vllm import VllmBackend
from alignlab.inference.backends.vllm_live import live_tensors
from contract import TOKENS, check_failures, check_greedy, check_score, reference
from tiny_models import CONTEXT, PROMPTS, VOCABULARY, adapted_model, save_adapter, tiny_model

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

WITH_VLLM = [pytest.mark.slow, pytest.mark.skipif(find_spec("vllm") is None, reason="needs vLLM")]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_live_tensors_are_what_a_merged_model_holds(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    adapter = save_adapter(kind, tmp_path)
    live = dict(live_tensors(adapted_model(kind, adapter)))
    merged = adapted_model(kind, adapter).merge_and_unload()
    wanted = dict(merged.named_parameters(remove_duplicate=False))
    assert live.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(live[name], tensor.detach(), msg=name)
    base = dict(tiny_model(kind).named_parameters(remove_duplicate=False))
    assert any(not torch.equal(live[name], base[name]) for name in live), "the adapter matters"


def test_of_another_engine(tmp_path: Path) -> None:
    """What a training can't have is one line."""
    backend = VllmBackend(processes=2)
    with pytest.raises(ValueError, match=r"backend=vllm: |the only process of a training"):
        backend.load(ModelSource("policy", model=tiny_model("llama")))


def model_of(seed: int, tied: bool) -> PreTrainedModel:
    """A Llama whose heads are as wide as vLLM has kernels for."""
    sizes = {"hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"vocab_size": VOCABULARY, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT}
    torch.manual_seed(seed)
    config = LlamaConfig(**sizes, tie_word_embeddings=tied, bos_token_id=None, eos_token_id=None, pad_token_id=0)
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter) if parameter.dim() > 1 else parameter)
    return model


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def live(request: pytest.FixtureRequest) -> Iterator[tuple[VllmBackend, PreTrainedModel]]:
    """An engine beside a model."""
    backend, model = VllmBackend(cache_bytes=2**28, eager=True), model_of(0, request.param)
    backend.load(ModelSource("policy", model=model))
    yield backend, model
    backend.close()


class TestLive:
    """The engine beside a model."""

    pytestmark = WITH_VLLM

    def test_it_keeps_the_contract(self, live: tuple[VllmBackend, PreTrainedModel]) -> None:
        backend, model = live
        check_greedy(backend, model)
        check_score(backend, model)
        check_failures(backend, model)

    def test_steps_reach_it(self, live: tuple[VllmBackend, PreTrainedModel]) -> None:
        backend, model = live
        before = [c.ids for c in backend.generate([Request(p, sampling=Sampling(TOKENS)) for p in PROMPTS])]
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)  # which no tensor's counter tells of
        model(torch.tensor([PROMPTS[0]])).logits.log_softmax(-1)[..., 5].sum().backward()
        optimizer.step()
        check_greedy(backend, model)
        assert before != [reference(model, p)[0] for p in PROMPTS]
        check_score(backend, model)

    def test_log_probabilities_are_taken_at_the_temperature(self, live: tuple[VllmBackend, PreTrainedModel]) -> None:
        backend, model = live
        (found,) = backend.generate([Request(PROMPTS[0], seed=3, sampling=Sampling(TOKENS, temperature=0.7))])
        ids = torch.tensor([PROMPTS[0] + found.ids])
        with torch.no_grad():
            logprobs = (model(ids).logits[0, len(PROMPTS[0]) - 1 : -1] / 0.7).log_softmax(-1)
        wanted = logprobs.gather(1, torch.tensor(found.ids)[:, None])[:, 0]
        assert torch.allclose(torch.tensor(found.logprobs), wanted, rtol=0, atol=1e-4)
