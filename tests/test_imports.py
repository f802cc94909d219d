"""Every module of the package can be imported."""

import importlib

from tiny_run import REPOSITORY

import pytest

SOURCE = REPOSITORY / "src"
MODULES = sorted(
    ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__") for file in SOURCE.rglob("*.py")
)
NEEDS = {"alignlab.tasks.harness.served_lm": "lm_eval"}  # a class of an extra's class


@pytest.mark.parametrize("module", MODULES)
def test_import(module: str) -> None:
    if module in NEEDS:
        pytest.importorskip(NEEDS[module])
    importlib.import_module(module)
