"""DeepSpeed's processes keep the contract: automatic tensor parallelism with even heads, ZeRO-Inference with any."""

from collections.abc import Iterator
from pathlib import Path

from alignlab.inference.backend import ModelSource
from alignlab.inference.backends.deepspeed import DeepSpeedBackend
from contract import check_failures, check_greedy, check_sampling, check_score
from tiny_models import save_model, tiny_model

import pytest

pytest.importorskip("deepspeed")
pytestmark = pytest.mark.deepspeed


@pytest.fixture(scope="module", params=["auto", "zero"])
def backend(request: pytest.FixtureRequest) -> Iterator[DeepSpeedBackend]:
    """Two processes for all tests of a mode."""
    found = DeepSpeedBackend(processes=2, mode=request.param)
    yield found
    found.close()


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("gpt_neox", "gpt2")]


@pytest.mark.parametrize("kind", ["llama", "bloom", *SLOW])
def test_contract(backend: DeepSpeedBackend, kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind, even=True)
    report = backend.load(ModelSource(str(save_model(kind, tmp_path, even=True))))
    check_greedy(backend, model)
    check_score(backend, model)
    check_failures(backend, model)
    check_sampling(backend)
    whole = sum(p.nbytes for p in model.parameters())
    assert report.weight_bytes < 2 * whole, "nothing was split"


@pytest.mark.parametrize("kind", ["llama", "bloom"])
def test_uneven_heads_go_to_zero_inference(backend: DeepSpeedBackend, kind: str, tmp_path: Path) -> None:
    backend.load(ModelSource(str(save_model(kind, tmp_path))))
    check_greedy(backend, tiny_model(kind))


def test_uneven_heads_are_one_line(tmp_path: Path) -> None:
    backend = DeepSpeedBackend(processes=2, mode="tensor_parallel")
    with pytest.raises(ValueError, match="DeepSpeed splits 3 heads evenly only, not over 2 processes"):
        backend.load(ModelSource(str(save_model("bloom", tmp_path))))
