"""OpenRLHF's losses, estimators and advantages, imported from its own files.

Its packages import vLLM and flash-attn, which need a GPU to be built and which nothing here calls: the packages'
`__init__` aren't run, the files are. `openrlhf.trainer.ray.launcher` alone is a placeholder: the experience maker names
one of its classes in annotations.
"""

import importlib
import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import pytest


def openrlhf_parts() -> SimpleNamespace:
    """The modules by their last names (`loss`, `experience_maker` ...); skips the test file where OpenRLHF or ray isn't installed."""
    spec = importlib.util.find_spec("openrlhf")
    if spec is None:
        pytest.skip("OpenRLHF isn't installed: docs/fidelity.md", allow_module_level=True)
    for name in ("ray", "deepspeed"):
        pytest.importorskip(name, reason="OpenRLHF imports it", exc_type=ImportError)
    (root,) = spec.submodule_search_locations
    for package in ("models", "utils", "trainer", "trainer.ppo_utils", "trainer.ray"):
        module = ModuleType(f"openrlhf.{package}")
        module.__path__ = [f"{root}/{package.replace('.', '/')}"]
        sys.modules[module.__name__] = module
    launcher = ModuleType("openrlhf.trainer.ray.launcher")
    launcher.RayActorGroup = object
    sys.modules[launcher.__name__] = launcher
    names = ("models.loss", "models.utils", *(f"trainer.ppo_utils.{n}" for n in ("experience_maker", "experience")))
    names += ("trainer.ppo_utils.kl_controller", "trainer.ppo_utils.length_penalty")
    return SimpleNamespace(**{n.rpartition(".")[2]: importlib.import_module(f"openrlhf.{n}") for n in names})
