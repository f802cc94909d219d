"""Backends that cannot run here say why in one line, and loading them says the same."""

import pytest
import torch

from alignlab.inference.backend import ModelSource
from alignlab.inference.backends.bminf import BminfBackend
from alignlab.inference.backends.deepspeed import DeepSpeedBackend
from alignlab.inference.backends.tensor_parallel_package import TensorParallelPackageBackend
from alignlab.inference.backends.vllm import VllmBackend
from tiny_models import save_model


@pytest.mark.parametrize("make", [BminfBackend, TensorParallelPackageBackend, VllmBackend])
def test_gates(make: type, tmp_path) -> None:
    backend = make()
    found = backend.available()
    if found.ok:
        pytest.skip(f"{backend.name} can run here: {found.reason}")
    assert found.reason and "\n" not in found.reason
    with pytest.raises(ValueError) as error:
        backend.load(ModelSource(str(save_model("llama", tmp_path))))
    assert str(error.value) == f"backend={backend.name}: {found.reason}"


@pytest.mark.parametrize(("capability", "fine"), [((6, 0), False), ((8, 0), True), ((8, 9), True), ((9, 0), False)])
def test_bminf_knows_its_gpus(capability: tuple[int, int], fine: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignlab.inference.backends.bminf.version", lambda name: "2.0.1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    found = BminfBackend().available()
    assert found.ok == fine and (fine or f"here is {capability[0]}.{capability[1]}" in found.reason)


def test_deepspeed_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignlab.inference.backends.deepspeed.find_spec", lambda name: None)
    assert DeepSpeedBackend().available() == (False, "needs DeepSpeed: pip install 'alignlab[deepspeed]'")
