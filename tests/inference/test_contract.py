"""One contract for all backends that run in this process, at four architectures; those that start processes have their own file."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from alignlab.inference.backend import Backend, ModelSource, Request, Sampling
from alignlab.inference.backends.compiled import CompiledBackend
from alignlab.inference.backends.offload import OffloadBackend
from alignlab.inference.backends.transformers import TransformersBackend
from contract import check_adapter, check_failures, check_greedy, check_sampling, check_score
from tiny_models import ARCHITECTURES, CONTEXT, PROMPTS, adapted_model, save_adapter, save_model, tiny_model

import pytest
import torch

BACKENDS: dict[str, Callable[[], Backend]] = {
    "transformers": TransformersBackend,
    "compiled": CompiledBackend,
    "offload": partial(OffloadBackend, resident=0.5),
    "offload, nothing resident": partial(OffloadBackend, resident=0.0),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models by name."""
    root = tmp_path_factory.mktemp("models")
    return {kind: save_model(kind, root / kind) for kind in ARCHITECTURES}


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("name", BACKENDS)
def test_contract(name: str, kind: str, folders: dict[str, Path]) -> None:
    backend, model = BACKENDS[name](), tiny_model(kind)
    assert backend.available().ok
    report = backend.load(ModelSource(str(folders[kind])))
    assert report.seconds > 0 and report.weight_bytes == backend.memory()["weights"] > 0
    check_greedy(backend, model)
    check_score(backend, model)
    check_failures(backend, model)
    assert set(backend.memory()) >= {"weights", "kv_cache", "resident", "peak"}
    backend.close()


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("name", BACKENDS)
def test_adapters(name: str, kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("peft")
    adapter = save_adapter(kind, tmp_path)
    adapted = adapted_model(kind, adapter)
    backend = BACKENDS[name]()

    def source(path: str | None) -> ModelSource:
        return ModelSource(str(folders[kind]), path)

    check_adapter(backend, source, adapter, adapted, tiny_model(kind))


@pytest.mark.parametrize("name", BACKENDS)
def test_sampled_tokens_do_not_depend_on_the_batch(name: str, folders: dict[str, Path]) -> None:
    yardstick, backend = TransformersBackend(), BACKENDS[name]()
    for each in (yardstick, backend):
        each.load(ModelSource(str(folders["llama"])))
    for expected, found in zip(check_sampling(yardstick), check_sampling(backend), strict=True):
        assert found.ids == expected.ids
        assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


@pytest.mark.parametrize("name", BACKENDS)
def test_context_is_a_limit(name: str, folders: dict[str, Path]) -> None:
    backend = BACKENDS[name]()
    backend.load(ModelSource(str(folders["gpt2"])))
    found = backend.generate(
        [Request([5] * CONTEXT), Request([5] * (CONTEXT - 3), sampling=Sampling(max_new_tokens=9))]
    )
    assert found[0].error == "the prompt has 64 tokens and leaves no room in the model's context of 64"
    assert found[1].finish == "length" and len(found[1].ids) == 3


def test_a_live_model_is_used_as_it_is() -> None:
    model = tiny_model("llama")
    backend = CompiledBackend()
    report = backend.load(ModelSource("", model=model))
    assert report.weight_bytes == sum(p.nbytes for p in model.parameters())
    check_greedy(backend, model)
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():  # as an optimizer's step
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    check_greedy(backend, model)


def test_interruption_keeps_what_is_finished(folders: dict[str, Path]) -> None:
    backend, done = CompiledBackend(batch_size=1), {}
    backend.load(ModelSource(str(folders["llama"])))

    def on_done(number: int, completion: object) -> None:
        done[number] = completion
        if len(done) == 2:
            raise KeyboardInterrupt

    requests = [Request([n + 1], sampling=Sampling(max_new_tokens=3)) for n in range(4)]
    with pytest.raises(KeyboardInterrupt):
        backend.generate(requests, on_done=on_done)
    assert len(done) == 2 and all(len(c.ids) == 3 for c in done.values())


@pytest.mark.parametrize("compile_step", [False, True])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_trainers_autocast_is_left(kind: str, compile_step: bool) -> None:
    """As in a rollout under bf16-mixed: a float32 model decodes in float32."""
    model, backend = tiny_model(kind), CompiledBackend(compile_step=compile_step)
    backend.load(ModelSource("", model=model))
    with torch.autocast("cpu", torch.bfloat16):
        requests = [Request(p, sampling=Sampling(max_new_tokens=12)) for p in PROMPTS]
        found, scores = backend.generate(requests), backend.score(PROMPTS)
    assert found == backend.generate(requests) and scores == backend.score(PROMPTS)
    check_greedy(backend, model)
