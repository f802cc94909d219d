"""What every method of the house declares."""

import importlib
import pkgutil

import alignlab.methods
from alignlab.methods.method import Method

import pytest


def methods() -> list[type[Method]]:
    """All that conf/ can name: the classes that modules of `methods/` define themselves."""
    found = []
    for module in pkgutil.iter_modules(alignlab.methods.__path__, "alignlab.methods."):
        if not module.ispkg:
            content = vars(importlib.import_module(module.name)).values()
            found += [
                x for x in content if isinstance(x, type) and issubclass(x, Method) and x.__module__ == module.name
            ]
    return [x for x in found if x.__name__.endswith("Method") and x.__name__ not in ("Method", "PairMethod")]


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.__name__)
def test_three_numbers_are_shown_while_it_trains(method: type[Method]) -> None:
    assert len(method.shown) == len(set(method.shown)) == 3
    assert all("/" in name for name in method.shown)
