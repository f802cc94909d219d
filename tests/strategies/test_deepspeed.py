"""`trainer=deepspeed` on a machine without DeepSpeed."""

import importlib
import sys

import alignlab.strategies
from alignlab.strategies import deepspeed, zero_state

import pytest


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (deepspeed, zero_state):
        monkeypatch.delitem(sys.modules, module.__name__)
        monkeypatch.delattr(alignlab.strategies, module.__name__.rpartition(".")[2])
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    found = importlib.import_module("alignlab.strategies.deepspeed")
    with pytest.raises(ValueError, match=r"trainer=deepspeed needs the extra: pip install 'alignlab\[deepspeed\]'"):
        found.DeepSpeed()
