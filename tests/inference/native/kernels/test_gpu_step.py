"""A decode step by Triton kernels: against plain torch, by the interpreter or on a card; what happens where it can't run.

Triton is no part of the CPU's set-up. Where it is, `TRITON_INTERPRET=1 pytest tests/inference/native/kernels/test_gpu_step.py` runs the kernels on a CPU.
"""

import logging
import os

from alignlab.inference.backend import ModelSource, Request, Sampling
from alignlab.inference.backends.compiled import CompiledBackend
from alignlab.inference.native.decoder import Decoder, FixedCache
from alignlab.inference.native.families import describe
from alignlab.inference.native.kernels import gpu_products, gpu_step
from alignlab.inference.native.kernels.gpu_step import GpuStep
from alignlab.inference.native.kernels.gpu_tiles import PROGRAMS, Tiles, one_row_tiles, some_rows_tiles
from alignlab.inference.native.loading import DecoderReader
from alignlab.inference.native.weights import LiveWeights
from tiny_models import PROMPTS, VOCABULARY, tiny_model

import numpy
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen2Config


def interpreter() -> str:
    """Why kernels can't run on a CPU here."""
    if gpu_products.triton is None or os.environ.get("TRITON_INTERPRET") != "1":
        return "needs Triton and TRITON_INTERPRET=1"
    try:
        int(numpy.ones(1))
    except TypeError:
        return "Triton's interpreter makes numbers of arrays, which this numpy refuses"
    return ""


def model_of(kind: str, dtype: torch.dtype = torch.float32, **settings: object) -> PreTrainedModel:
    """Random weights; norms and biases that matter; sizes that are no powers of two."""
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 60, "intermediate_size": 50, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 2048} | settings
    torch.manual_seed(0)
    config = {"llama": LlamaConfig, "qwen2": Qwen2Config}[kind](**sizes)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape)
            if parameter.dim() == 1:
                parameter.copy_(1 + 0.2 * noise if name.endswith("weight") else 0.1 * noise)
            else:
                parameter.copy_(noise * parameter.shape[1] ** -0.5)
    return model.to(dtype)


def check_step(model: PreTrainedModel, rows: int, columns: int, at: int, within: float) -> None:
    """Logits, cache, choice and counters of a step, beside those of plain torch."""
    device, dtype = model.device, model.dtype
    decoder = DecoderReader(LiveWeights(model), describe(model.config)).decoder()
    step = GpuStep.of(decoder)
    assert step is not None
    generator = torch.Generator().manual_seed(rows)
    starts = torch.randint(0, at + 1, (rows,), generator=generator).to(device)
    ids = torch.randint(0, model.config.vocab_size, (rows, 1), generator=generator).to(device)
    shape = decoder.cache_shape(rows, columns)
    whole = [torch.randn(shape, generator=generator).to(device, dtype) for _ in range(2)]
    plain, fused = ([*(tensor.clone() for tensor in whole), starts, torch.tensor([at], device=device)] for _ in "12")
    told, count = torch.zeros(rows, 9, 2, dtype=torch.float64, device=device), torch.tensor([3], device=device)
    with torch.inference_mode():
        wanted = decoder.logits(decoder.states(ids, FixedCache(*plain))[:, -1])
        found = step.logits(ids, FixedCache(*fused))
        assert found is not None
        for one, other in zip((wanted, *plain[:2]), (found, *fused[:2]), strict=True):
            torch.testing.assert_close(other.float(), one.float(), rtol=0, atol=within * one.abs().max().item())
        again = step.logits(ids, FixedCache(*fused))
        assert torch.equal(again, found), "the same for the same shape"
        assert step.likeliest(ids, FixedCache(*fused), count, told)
    logprobs = found.log_softmax(-1).max(-1)
    assert ids[:, 0].tolist() == told[:, 3, 0].tolist() == logprobs.indices.tolist()
    torch.testing.assert_close(told[:, 3, 1].float(), logprobs.values, rtol=0, atol=1e-5)
    assert (count.item(), fused[3].item(), told[:, [2, 4]].abs().sum().item()) == (4, at + 1, 0)


@pytest.mark.skipif(bool(interpreter()), reason=interpreter())
@pytest.mark.parametrize(
    ("kind", "rows", "columns", "settings"),
    [("llama", 1, 128, {}), ("qwen2", 3, 192, {}), ("llama", 2, 768, {"head_dim": 128, "num_attention_heads": 2})],
)
def test_a_step_by_the_interpreter(kind: str, rows: int, columns: int, settings: dict) -> None:
    check_step(model_of(kind, num_hidden_layers=1, **settings), rows, columns, columns - 20, 1e-5)


@pytest.mark.skipif(bool(interpreter()), reason=interpreter())
def test_programs_share_inputs_by_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four programs a tile, of which the last has nothing left to add."""
    monkeypatch.setattr(gpu_step, "some_rows_tiles", lambda *shape: Tiles(16, 16, split=4))
    check_step(model_of("qwen2", torch.bfloat16, num_hidden_layers=1, hidden_size=48), 3, 128, 100, 0.03)


@pytest.mark.parametrize("outputs", [576, 2048, 4096, 8192, 14_336])
@pytest.mark.parametrize("inputs", [576, 1536, 2048, 4096, 8192, 14_336])
@pytest.mark.parametrize("gated", [False, True])
def test_tiles_are_many_and_hold_powers_of_two(outputs: int, inputs: int, gated: bool) -> None:
    one, some = one_row_tiles(outputs, inputs, gated), some_rows_tiles(outputs, inputs, gated)
    assert outputs / one.outputs >= PROGRAMS
    if outputs >= 2048:
        assert outputs / some.outputs * some.split >= PROGRAMS, "every multiprocessor has work"
    assert (some.split - 1) * some.inputs < inputs, "every program has inputs"
    weights = some.outputs * (2 if gated else 1)
    assert (weights + 16) * some.inputs * 2 * some.stages <= 113 * 1024, "two programs share a multiprocessor's memory"
    for tiles in (one, some):
        assert all(number & (number - 1) == 0 for number in (tiles.outputs, tiles.inputs))
    assert one.outputs * one.inputs * (2 if gated else 1) <= 8192, "a thread holds 64 weights"


@pytest.mark.parametrize("kind", ["bloom", "gpt2", "gpt_neox"])
def test_others_keep_their_steps(kind: str) -> None:
    model = tiny_model(kind)
    assert GpuStep.of(DecoderReader(LiveWeights(model), describe(model.config)).decoder()) is None


def decoder_of(backend: CompiledBackend) -> Decoder:
    assert backend.decoder is not None
    return backend.decoder


def test_where_kernels_fail_plain_steps_go_on(caplog: pytest.LogCaptureFixture) -> None:
    """What can't be launched here is tried once."""
    plain, fused = (CompiledBackend(device="cpu", compile_step=True) for _ in "12")
    for backend in (plain, fused):
        backend.load(ModelSource("", model=tiny_model("llama")))
    fused._steps.kernels = GpuStep(decoder_of(fused))
    settings = [Sampling(20), Sampling(20, temperature=1.0)]
    with caplog.at_level(logging.WARNING):
        for number, setting in enumerate(settings):
            some = [Request(prompt, number, setting) for prompt in PROMPTS]
            assert [c.ids for c in fused.generate(some)] == [c.ids for c in plain.generate(some)]
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("decoding without Triton kernels") and "\n" not in line
    assert not fused._steps.kernels.usable


@pytest.mark.gpu
class TestOnAGpu:
    """The kernels themselves."""

    @pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
    @pytest.mark.parametrize("rows", [1, 2, 8, 32])
    @pytest.mark.parametrize("columns", [128, 768])
    def test_a_step(self, dtype: torch.dtype, within: float, rows: int, columns: int) -> None:
        sizes = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3}
        check_step(model_of("llama", dtype, **sizes).cuda(), rows, columns, columns - 20, within)

    def test_wide_heads_biases_and_odd_sizes(self) -> None:
        check_step(model_of("llama", head_dim=128, num_attention_heads=2).cuda(), 2, 768, 700, 1e-5)
        check_step(model_of("qwen2").cuda(), 3, 192, 180, 1e-5)
        check_step(model_of("qwen2", torch.bfloat16).cuda(), 3, 192, 180, 0.03)
        sizes = {"hidden_size": 2048, "intermediate_size": 4096, "num_attention_heads": 16, "num_key_value_heads": 4}
        check_step(model_of("llama", torch.bfloat16, **sizes).cuda(), 8, 192, 180, 0.03)

    def test_their_graphs_give_the_tokens_of_plain_graphs(self) -> None:
        model = model_of("llama").cuda()
        plain, fused = CompiledBackend(device="cuda", fuse_step=False), CompiledBackend(device="cuda")
        for backend in (plain, fused):
            backend.load(ModelSource("", model=model))
        for count in (1, 3, 20):
            for setting in (Sampling(60, ignore_eos=True), Sampling(60, temperature=1.0)):
                some = [Request(PROMPTS[n % 4], n, setting) for n in range(count)]
                assert [c.ids for c in fused.generate(some)] == [c.ids for c in plain.generate(some)]
        assert plain._steps.kernels is None and fused._steps.kernels.usable and fused._steps.recorder.usable
