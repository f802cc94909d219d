"""Numbers of a measurement: there, of the right size, and equal where a backend is compared with itself."""

import json
from pathlib import Path

from alignlab.inference.backends.compiled import CompiledBackend
from alignlab.inference.backends.scripted import ScriptedBackend
from alignlab.inference.backends.transformers import TransformersBackend
from alignlab.tasks.measure import Measure
from language_job import job_of, subject_of
from served_model import write_language_model

import pytest

SMALL = {"batch_sizes": (1, 3), "prompt_tokens": 8, "new_tokens": 5, "repeats": 2, "bandwidth": 1e10}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose context holds the sample texts."""
    return write_language_model(tmp_path_factory.mktemp("measured"), positions=512)


def test_numbers(folder: Path, tmp_path: Path) -> None:
    subject = subject_of(folder)
    found = Measure(**SMALL).run(subject, job_of(tmp_path, model=str(folder)))
    for size in (1, 3):
        total = size * 5 / found[f"batch_{size}_tokens_per_second"]
        first = found[f"batch_{size}_first_token_ms"] / 1000
        each = found[f"batch_{size}_ms_per_token"] / 1000
        assert each == pytest.approx(max(0.0, total - first) / 4, rel=1e-6, abs=1e-12)
    weights = sum(x.numel() for x in TransformersBackend_parameters(folder)) * 4
    assert found["weight_bytes"] == pytest.approx(weights, rel=0.35), "a tied or padded matrix more or less"
    assert found["formula_bytes"] == found["weight_bytes"] + 2 * 2 * 2 * 8 * 3 * 13 * 4
    assert found["floor_ms_per_token"] == pytest.approx(1000 * found["weight_bytes"] / 1e10)
    if found["batch_1_ms_per_token"]:
        assert found["roofline_fraction"] == pytest.approx(found["floor_ms_per_token"] / found["batch_1_ms_per_token"])


def TransformersBackend_parameters(folder: Path) -> list:
    from transformers import AutoModelForCausalLM

    return list(AutoModelForCausalLM.from_pretrained(folder).parameters())


def test_agreement_of_two_backends(folder: Path, tmp_path: Path) -> None:
    first = Measure(**SMALL).run(subject_of(folder, backend=TransformersBackend()), job_of(tmp_path / "a"))
    assert "same_tokens" not in first
    yardstick = tmp_path / "a" / "agreement.json"
    second = Measure(**SMALL, yardstick=str(yardstick)).run(subject_of(folder), job_of(tmp_path / "b"))
    assert second["same_tokens"] == 1.0 and second["largest_logprob_difference"] < 1e-4
    assert abs(second["perplexity_change"]) < 1e-5
    held = json.loads(yardstick.read_text())
    assert len({len(ids) for ids in held["sequences"]}) == 5, "prompts of unequal length"
    held["tokens"][0][2] += 1
    held["logprobs"][1][3] -= 0.25
    yardstick.write_text(json.dumps(held))
    third = Measure(**SMALL, yardstick=str(yardstick)).run(subject_of(folder), job_of(tmp_path / "c"))
    assert third["same_tokens"] == pytest.approx(1 - 3 / 25), "nothing counts after the first that differs"
    assert third["largest_logprob_difference"] == pytest.approx(0.25, abs=1e-4)


def test_a_batch_that_fails_leaves_the_others(folder: Path, tmp_path: Path) -> None:
    class Small(ScriptedBackend):
        def generate(self, requests, **told):
            if len(requests) == 3:
                raise MemoryError("out of memory")
            return super().generate(requests, **told)

    backend = Small({"e": "some long answer"})
    found = Measure(**SMALL).run(subject_of(folder, backend=backend), job_of(tmp_path))
    assert "batch_1_tokens_per_second" in found and "batch_3_tokens_per_second" not in found


def test_what_does_not_fit(language_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"are 96 tokens; this model's context has 64"):
        Measure().run(subject_of(language_model), job_of(tmp_path))
    with pytest.raises(ValueError, match=r"new_tokens is 1; it must be at least 2"):
        Measure(new_tokens=1)


def test_bandwidth_and_peak_are_of_the_device_that_computed(folder: Path, tmp_path: Path, monkeypatch) -> None:
    """A backend that was left on the CPU of a machine with a GPU."""
    asked = []
    monkeypatch.setattr("alignlab.tasks.measure.default_device", lambda: "cuda")
    monkeypatch.setattr("alignlab.tasks.measure.read_bandwidth", lambda device: asked.append(device) or 5e9)
    subject = subject_of(folder, backend=CompiledBackend(device="cpu"))
    found = Measure(**SMALL).run(subject, job_of(tmp_path))
    assert asked == ["cpu"] and found["bandwidth_bytes_per_second"] == 5e9 and "peak_gpu_bytes" not in found


def test_a_batch_is_as_large_as_it_is_called(folder: Path, tmp_path: Path) -> None:
    """64 requests run as one batch though the backend was made for 2 at a time."""

    class Counting(CompiledBackend):
        sizes: list[int] = []  # noqa: RUF012

        def run(self, rows, allowed):
            self.sizes.append(len(rows.requests))
            return super().run(rows, allowed)

    backend = Counting(batch_size=2, device="cpu")
    Measure(**(SMALL | {"batch_sizes": (64,), "repeats": 1})).run(subject_of(folder, backend=backend), job_of(tmp_path))
    assert set(backend.sizes[:4]) == {64}
