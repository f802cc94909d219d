"""Backends that cannot run here say why in one line, and loading them says the same."""

from alignlab.inference.backend import ModelSource
from alignlab.inference.backends.deepspeed import DeepSpeedBackend
from alignlab.inference.backends.vllm import VllmBackend
from tiny_models import save_model

import pytest


@pytest.mark.parametrize("make", [VllmBackend])
def test_gates(make: type, tmp_path) -> None:
    backend = make()
    found = backend.available()
    if found.ok:
        pytest.skip(f"{backend.name} can run here: {found.reason}")
    assert found.reason and "\n" not in found.reason
    with pytest.raises(ValueError) as error:
        backend.load(ModelSource(str(save_model("llama", tmp_path))))
    assert str(error.value) == f"backend={backend.name}: {found.reason}"


def test_deepspeed_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignlab.inference.backends.deepspeed.find_spec", lambda name: None)
    assert DeepSpeedBackend().available() == (False, "needs DeepSpeed: pip install 'alignlab[deepspeed]'")
