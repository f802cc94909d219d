"""The contract of backends that start processes of their own: two of them, over gloo."""

from collections.abc import Iterator
from pathlib import Path

from alignlab.inference.backend import ModelSource, Request, Sampling
from alignlab.inference.backends.tensor_parallel import TensorParallelBackend
from alignlab.inference.backends.transformers import TransformersBackend
from alignlab.inference.processes.parallel import WorkerError
from contract import check_adapter, check_failures, check_greedy, check_sampling, check_score
from tiny_models import ARCHITECTURES, adapted_model, save_adapter, save_model, tiny_model

import pytest

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def backend() -> Iterator[TensorParallelBackend]:
    """Two processes for all tests of this file."""
    found = TensorParallelBackend(processes=2)
    yield found
    found.close()


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_tensor_parallel(backend: TensorParallelBackend, kind: str, tmp_path: Path) -> None:
    """Three key heads on two ranks: an uneven split everywhere."""
    model, folder = tiny_model(kind), save_model(kind, tmp_path / "model")
    backend.load(ModelSource(str(folder)))
    check_greedy(backend, model)
    check_score(backend, model)
    check_failures(backend, model)
    whole = sum(p.nbytes for p in model.parameters())
    assert whole * 0.4 < backend.memory()["largest_weights"] < whole * 0.65

    pytest.importorskip("peft")
    adapter = save_adapter(kind, tmp_path / "adapter")
    adapted = adapted_model(kind, adapter)
    check_adapter(backend, lambda path: ModelSource(str(folder), path), adapter, adapted, model)


def test_sampled_tokens_are_the_yardsticks(backend: TensorParallelBackend, tmp_path: Path) -> None:
    folder, yardstick = save_model("llama", tmp_path), TransformersBackend()
    yardstick.load(ModelSource(str(folder)))
    backend.load(ModelSource(str(folder)))
    for expected, found in zip(check_sampling(yardstick), check_sampling(backend), strict=True):
        assert found.ids == expected.ids


def test_interruption_ends_the_processes(tmp_path: Path) -> None:
    backend, done = TensorParallelBackend(processes=2, batch_size=1), {}
    backend.load(ModelSource(str(save_model("llama", tmp_path))))

    def on_done(number: int, completion: object) -> None:
        done[number] = completion
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backend.generate([Request([n + 1], sampling=Sampling(max_new_tokens=3)) for n in range(4)], on_done=on_done)
    assert len(done) == 1
    with pytest.raises(ValueError, match="no model yet"):
        backend.generate([Request([1])])


def test_a_wrong_folder_is_one_line_from_the_processes(tmp_path: Path) -> None:
    backend = TensorParallelBackend(processes=2)
    with pytest.raises(ValueError, match=r"neither config.json nor adapter_config.json"):
        backend.load(ModelSource(str(tmp_path)))


def test_a_process_that_dies_is_named(tmp_path: Path) -> None:
    backend = TensorParallelBackend(processes=2)
    backend.load(ModelSource(str(save_model("llama", tmp_path))))
    backend._workers._processes[1].kill()
    with pytest.raises(WorkerError, match=r"process [01] of 2"):
        backend.score([[1, 2, 3]])
