"""Every callback alone under fsdp with two processes: a collective that only some ranks call would hang, a forward of shards on one rank too."""

import inspect
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import alignlab.callbacks
import callback_ranks
from two_processes import start

import pytest
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf

CONF = Path(__file__).resolve().parents[2] / "conf" / "callbacks"


# Those in which each rank keeps to itself, by their docstrings; fsdp was never what broke them.
APART = ("progress", "introduction", "throughput", "final_validation", "learning_rate", "curves", "data_wait", "flops")


@pytest.mark.slow  # two minutes; the default callbacks together are those of test_as_typed
@pytest.mark.distributed
def test_each_callback_with_an_exchange_alone_under_fsdp(tmp_path: Path) -> None:
    start(
        Path(callback_ranks.__file__),
        tmp_path,
        [name for name in callback_ranks.CALLBACKS if name not in APART],
        seconds=400,
    )


@pytest.mark.slow
@pytest.mark.distributed
def test_each_other_callback_alone_under_fsdp(tmp_path: Path) -> None:
    start(Path(callback_ranks.__file__), tmp_path, list(APART), seconds=400)


def test_every_callback_of_the_configs_is_tried() -> None:
    known = {key for file in CONF.glob("*.yaml") for key in OmegaConf.load(file) if key != "defaults"}
    assert known == set(callback_ranks.CALLBACKS)


def test_every_callback_says_what_ranks_do_together() -> None:
    silent = []
    for module in walk_packages(alignlab.callbacks.__path__, "alignlab.callbacks."):
        home = module.name
        for name, thing in vars(import_module(home)).items():
            own = inspect.isclass(thing) and issubclass(thing, Callback) and thing.__module__ == home
            if own and "\n    Ranks: " not in (thing.__doc__ or ""):
                silent.append(f"{module.name}.{name}")
    assert not silent, f"no line `Ranks: ...` in the docstring of {', '.join(silent)}"
