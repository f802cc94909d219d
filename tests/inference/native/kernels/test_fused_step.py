"""One call for all blocks gives what the decoder gives, for any number of rows, lengths, types, and as rows leave."""

from pathlib import Path

from alignlab.inference.backend import ModelSource
from alignlab.inference.backends.compiled import CompiledBackend
from alignlab.inference.backends.int8 import Int8Backend
from alignlab.inference.native.backend import NativeBackend
from alignlab.inference.native.decoding import last_logits, left_padded
from alignlab.inference.native.kernels.compiling import library
from alignlab.inference.native.kernels.fused_step import FusedStep
from alignlab.inference.native.kernels.small_matmul import MOST_ROWS
from tiny_models import VOCABULARY, save_adapter, save_model, tiny_model

import pytest
import torch

pytestmark = pytest.mark.skipif(library() is None, reason="needs a C compiler")


def steps(backend: NativeBackend, rows: int, fused: bool, count: int = 6) -> torch.Tensor:
    """Logits of some steps after prompts of all lengths, half of the rows leaving on the way: (steps, V) of the first row that stays."""
    decoder = backend.decoder
    step = FusedStep.of(decoder) if fused else None
    assert step is not None or not fused
    generator = torch.Generator().manual_seed(rows)
    prompts = [torch.randint(1, VOCABULARY, (1 + 3 * row % 7,), generator=generator).tolist() for row in range(rows)]
    ids, starts = left_padded(prompts)
    cache = decoder.cache(starts, ids.shape[1] + count)
    found = [last_logits(decoder, ids, cache)]
    for index in range(count):
        ids = torch.randint(1, VOCABULARY, (rows, 1), generator=generator)[-len(found[-1]) :]
        if index == 3 and rows > 1:
            kept = torch.arange(rows // 2, rows)
            cache.keep(kept.tolist(), kept)
            ids = ids[kept]
        found.append(last_logits(decoder, ids, cache) if step is None else step(ids, cache))
    return torch.stack([logits[-1] for logits in found])


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, MOST_ROWS])
def test_fp32(kind: str, rows: int, tmp_path: Path) -> None:
    backend = CompiledBackend()
    backend.load(ModelSource(str(save_model(kind, tmp_path))))
    expected, found = steps(backend, rows, fused=False), steps(backend, rows, fused=True)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_bf16_is_closer_to_fp32_than_the_decoder(kind: str, tmp_path: Path) -> None:
    """Its activations are fp32, so it may not be worse."""
    folder, exact, rounded = save_model(kind, tmp_path), CompiledBackend(), CompiledBackend()
    exact.load(ModelSource(str(folder)))
    rounded.load(ModelSource(str(folder), dtype="bfloat16"))
    expected = steps(exact, 4, fused=True)
    errors = [(steps(rounded, 4, fused=fused) - expected).norm() / expected.norm() for fused in (False, True)]
    assert errors[1] < 0.05 and errors[1] < 1.2 * errors[0]


@torch.inference_mode()
@pytest.mark.parametrize("mode", ["weight_only", "w8a8"])
@pytest.mark.parametrize("rows", [1, 5])
def test_int8(mode: str, rows: int, tmp_path: Path) -> None:
    backend = Int8Backend(mode)
    backend.load(ModelSource(str(save_model("llama", tmp_path))))
    expected, found = steps(backend, rows, fused=False), steps(backend, rows, fused=True)
    assert (found - expected).norm() / expected.norm() < (1e-4 if mode == "weight_only" else 0.05)


def test_it_stands_back_where_it_cannot_be_exact(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    for kind, source in [
        ("bloom", ModelSource(str(save_model("bloom", tmp_path / "bloom")))),
        ("gpt_neox", ModelSource(str(save_model("gpt_neox", tmp_path / "neox")))),
        ("gpt2", ModelSource("", model=tiny_model("gpt2"))),  # transposed where it lies
        (
            "llama",
            ModelSource(str(save_model("llama", tmp_path / "llama")), str(save_adapter("llama", tmp_path / "a"))),
        ),
    ]:
        backend = CompiledBackend()
        backend.load(source)
        assert FusedStep.of(backend.decoder) is None, kind
    backend.set_adapter(None)
    assert FusedStep.of(backend.decoder) is not None
    backend.load(ModelSource("", model=tiny_model("llama")))
    assert FusedStep.of(backend.decoder) is not None
