"""Steps at fixed addresses, which are CUDA graphs on a GPU: the plain loop's tokens, buffers that never move, nothing that waits."""

import logging
from collections.abc import Callable
from pathlib import Path

from alignlab.inference.backend import ModelSource, Request, Sampling
from alignlab.inference.backends.compiled import CompiledBackend
from alignlab.inference.native import fixed_decoding, fixed_steps
from alignlab.inference.native.cuda_graphs import Recorder
from alignlab.inference.native.families import describe
from alignlab.inference.native.fixed_steps import FixedBatch, FixedSteps, column_count, row_count
from alignlab.inference.native.loading import DecoderReader
from alignlab.inference.native.weights import LiveWeights
from contract import check_adapter, check_failures, check_greedy, check_sampling
from tiny_models import ARCHITECTURES, PROMPTS, VOCABULARY, adapted_model, save_adapter, save_model, tiny_model

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SETTINGS = [
    Sampling(30, temperature=1.0),
    Sampling(25),
    Sampling(30, temperature=0.7, top_k=7),
    Sampling(30, temperature=1.2, top_p=0.8, min_p=0.02),
    Sampling(30, temperature=1.0, top_k=20, top_p=0.9, repetition_penalty=1.3),
    Sampling(3, repetition_penalty=1.5),
    Sampling(30, temperature=1.5, stop_ids=tuple(range(0, VOCABULARY, 7))),
]


def requests(settings: list[Sampling], seed: int = 0) -> list[Request]:
    """Prompts of 1 to 20 tokens."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 21, (len(settings),), generator=generator).tolist()
    prompts = [torch.randint(1, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]
    return [Request(p, seed + n, s) for n, (p, s) in enumerate(zip(prompts, settings, strict=True))]


def loaded(kind: str = "llama", **settings: object) -> CompiledBackend:
    """A backend with a live model whose steps are fixed."""
    backend = CompiledBackend(**{"compile_step": True, "device": "cpu"} | settings)
    backend.load(ModelSource("", model=tiny_model(kind)))
    return backend


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_contract(kind: str, tmp_path: Path) -> None:
    backend, model = CompiledBackend(compile_step=True, device="cpu"), tiny_model(kind)
    backend.load(ModelSource(str(save_model(kind, tmp_path))))
    check_greedy(backend, model)
    check_failures(backend, model)
    check_sampling(backend)


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("count", [7, 1, 20])
def test_tokens_are_those_of_the_plain_loop(kind: str, count: int) -> None:
    """Greedy and sampled rows with all filters, uneven prompts, ends by stop token and by length, so that rows leave now and then."""
    settings = (3 * SETTINGS)[:count]
    plain, fixed = loaded(kind, compile_step=False), loaded(kind)
    for seed in range(2):  # the second batch finds the buffers as the first has left them
        calls: tuple[list, list] = [], []
        wanted, found = (
            backend.generate(requests(settings, seed), on_token=lambda n, t, told=told: told.append((n, t)))
            for backend, told in zip((plain, fixed), calls, strict=True)
        )
        assert calls[0] == calls[1], "tokens are told of in the same order"
        for one, other in zip(wanted, found, strict=True):
            assert (other.ids, other.finish) == (one.ids, one.finish)
            assert other.logprobs == pytest.approx(one.logprobs, abs=1e-4)
    assert count < 7 or {c.finish for c in found} == {"stop", "length"}


@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])
def test_adapters(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    folder, adapter = save_model(kind, tmp_path / "model"), save_adapter(kind, tmp_path / "adapter")
    backend = CompiledBackend(compile_step=True, device="cpu")

    def source(path: str | None) -> ModelSource:
        return ModelSource(str(folder), path)

    check_adapter(backend, source, adapter, adapted_model(kind, adapter), tiny_model(kind))


def test_a_live_model_may_change_between_batches() -> None:
    model, backend = tiny_model("llama"), CompiledBackend(compile_step=True, device="cpu")
    backend.load(ModelSource("", model=model))
    check_greedy(backend, model)
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    check_greedy(backend, model)


def test_stale_numbers_of_a_batch_before_do_no_harm() -> None:
    """What a mask hides is multiplied with zero, and zero times NaN is NaN."""
    backend, some = loaded(), requests(SETTINGS)
    wanted = backend.generate(some)
    with torch.inference_mode():
        for batch in backend._steps.batches.values():
            batch.keys.fill_(torch.nan), batch.values.fill_(torch.nan)
    assert backend.generate(some) == wanted


def test_shapes() -> None:
    assert [row_count(n) for n in (1, 2, 3, 8, 9)] == [1, 2, 4, 8, 16]
    wanted = {1: 128, 128: 128, 129: 192, 192: 192, 193: 256, 257: 384, 1025: 1536, 1537: 2048}
    assert {n: column_count(n) for n in wanted} == wanted


def test_no_buffer_and_no_weight_ever_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither from step to step, nor as rows leave, nor from batch to batch."""
    backend, seen, made = loaded(), [], FixedBatch._run

    def addresses() -> list[int]:
        (batch,) = backend._steps.batches.values()
        return [
            t.data_ptr() for t in (*batch.buffers().values(), *backend.decoder.tensors(), *backend.decoder._tables[-1])
        ]

    def watched(self: FixedBatch, *shape: object) -> None:
        made(self, *shape)
        seen.append(addresses())

    monkeypatch.setattr(FixedBatch, "_run", watched)
    for seed in range(3):
        lengths = (2, 4, 5, 20, 21, 50, 70)
        backend.generate(requests([s._replace(max_new_tokens=n) for n, s in zip(lengths, SETTINGS, strict=True)], seed))
    assert len(seen) > 100 and all(each == seen[0] for each in seen)
    (batch,) = backend._steps.batches.values()
    assert {8, 1} < {rows for rows, *_ in batch._steps} <= {8, 4, 2, 1}, "shapes are few"


def test_memory_grows_with_the_largest_batch_only() -> None:
    backend = loaded()
    for count in (2, 8, 1):
        backend.generate(requests([Sampling(4)] * count))
    shape = backend.decoder.cache_shape(8, 128)
    assert backend._steps.bytes() == 2 * 4 * torch.Size(shape).numel() == backend.memory()["kv_cache"]
    backend.generate(requests([Sampling(4)] * 3))
    starts = {batch.keys.data_ptr() for batch in backend._steps.batches.values()}
    assert {rows for rows, _ in backend._steps.batches} == {8, 1, 4} and len(starts) == 1


def test_graphs_are_forgotten_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixed_steps, "MOST_GRAPHS", 3)
    backend = loaded()
    for count in (8, 4, 2, 1, 8, 4):
        backend.generate(requests([Sampling(4)] * count))
        assert sum(batch.recorded() for batch in backend._steps.batches.values()) <= 4


class Watch(TorchDispatchMode):
    """Fails where a CUDA graph would: answers for Python, sizes that depend on numbers, tensors of the host."""

    def __torch_dispatch__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        name, tensors = str(func), [x for x in tree_leaves((args, kwargs or {})) if isinstance(x, torch.Tensor)]
        assert not any(asks in name for asks in ("_local_scalar_dense", "nonzero", "masked_select", "unique")), name
        assert "index" not in name or not any(t.dtype == torch.bool for t in tensors[1:]), f"{name} by a mask"
        assert all(t.is_meta for t in tensors), f"{name} with a tensor of the host"  # torch.where makes one of a number
        assert (kwargs or {}).get("device") is None or kwargs["device"].type == "meta", f"{name} on the host"
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("settings", [SETTINGS[1:2], SETTINGS[:1], SETTINGS], ids=["greedy", "sampled", "everything"])
def test_a_step_asks_the_device_for_nothing(kind: str, settings: list[Sampling]) -> None:
    """On a device whose tensors hold no numbers, and where those of the host are told apart."""
    model = tiny_model(kind).to("meta")
    with torch.no_grad():  # in inference mode some operations would arrive here whole
        decoder = DecoderReader(LiveWeights(model), describe(model.config)).decoder()
        batch = FixedSteps(decoder).batch(len(settings), 60)
        batch.choice = fixed_steps.Choice.of(settings, VOCABULARY)
        batch.seen = torch.zeros(batch.rows, VOCABULARY, dtype=torch.bool, device="meta")
        batch.step(batch.rows, batch.columns)  # makes the rotations' tables, as a prompt does
        with Watch():
            batch.step(batch.rows, batch.columns)


def test_reads_are_few_and_behind_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, events, started = loaded(), [], fixed_steps.fetched

    def fetched(tensor: torch.Tensor, streams: bool) -> Callable[[], list]:
        place, numbers = sum(e[0] == "read" for e in events), started(tensor, streams)
        events.append(("read", tensor.shape[1]))
        return lambda: events.append(("got", place)) or numbers()

    run = FixedBatch._run
    monkeypatch.setattr(fixed_steps, "fetched", fetched)
    monkeypatch.setattr(FixedBatch, "_run", lambda self, *shape: (events.append(("step",)), run(self, *shape))[1])
    (found,) = backend.generate([Request(PROMPTS[0], 0, Sampling(40))])
    assert len(found.ids) == 40
    reads = [event for event in events if event[0] == "read"]
    assert len(reads) == 1 + 5 and sum(n for _, n in reads) == 40, "the first token, then one read every eight"
    for place in range(4):  # what is read is waited for only when the next tokens are on their way
        assert events.index(("got", place)) > [n for n, e in enumerate(events) if e[0] == "read"][place + 1]


def test_ended_rows_cost_at_most_two_reads_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, steps, run = loaded(), [], FixedBatch._run
    monkeypatch.setattr(FixedBatch, "_run", lambda self, *shape: (steps.append(shape[0]), run(self, *shape))[1])
    (first,) = backend.generate([Request(PROMPTS[0], 0, Sampling(40))])
    del steps[:]
    stop = next(token for place, token in enumerate(first.ids) if place >= 4 and token not in first.ids[:place])
    end = first.ids.index(stop) + 1
    (found,) = backend.generate([Request(PROMPTS[0], 0, Sampling(40, stop_ids=(stop,)))])
    assert found.ids == first.ids[:end] and found.finish == "stop"
    assert len(steps) <= end + 2 * fixed_decoding.EVERY


def test_without_graphs_it_says_so_once_and_runs(caplog: pytest.LogCaptureFixture) -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    with caplog.at_level(logging.WARNING):
        recorder = Recorder(torch.device("cuda", 0))
    assert not recorder.usable and not recorder.streams
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("decoding without CUDA graphs") and "\n" not in line


@pytest.mark.gpu
class TestOnAGpu:
    """The graphs themselves."""

    @pytest.mark.parametrize("kind", ARCHITECTURES)
    def test_graphs_give_the_tokens_of_plain_steps(self, kind: str, tmp_path: Path) -> None:
        folder = save_model(kind, tmp_path)
        plain, graphs = CompiledBackend(device="cuda", compile_step=False), CompiledBackend(device="cuda")
        for backend in (plain, graphs):
            backend.load(ModelSource(str(folder)))
        for seed in range(3):
            wanted, found = (backend.generate(requests(2 * SETTINGS, seed)) for backend in (plain, graphs))
            for one, other in zip(wanted, found, strict=True):
                assert (other.ids, other.finish) == (one.ids, one.finish)
                assert other.logprobs == pytest.approx(one.logprobs, abs=1e-3)
        assert graphs._steps.recorder.usable and graphs._steps.recorder.graphs > 0

    def test_replays_record_nothing_anew_and_wait_for_nothing(self) -> None:
        backend = CompiledBackend(device="cuda")
        backend.load(ModelSource("", model=tiny_model("llama").cuda()))
        some = requests([Sampling(30, ignore_eos=True)] * 8)
        wanted = backend.generate(some)
        recorded = backend._steps.recorder.graphs
        assert recorded > 0
        torch.cuda.set_sync_debug_mode("error")
        try:
            batch = next(iter(backend._steps.batches.values()))
            with torch.inference_mode():
                for _ in range(4):
                    batch.step(8, batch.columns)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert [c.ids for c in backend.generate(some)] == [c.ids for c in wanted]
        assert backend._steps.recorder.graphs <= recorded + 1

    def test_a_live_model_that_changes_is_seen_by_its_graph(self) -> None:
        model = tiny_model("llama").cuda()
        backend = CompiledBackend(device="cuda")
        backend.load(ModelSource("", model=model))
        some = requests([Sampling(20, ignore_eos=True)] * 4)
        before = backend.generate(some)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        plain = CompiledBackend(device="cuda", compile_step=False)
        plain.load(ModelSource("", model=model))
        after = backend.generate(some)
        assert [c.ids for c in after] == [c.ids for c in plain.generate(some)] != [c.ids for c in before]
