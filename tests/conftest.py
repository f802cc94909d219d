"""Settings of every test process, and the fixtures that compose configs and run them in this process."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # several test processes share few cores

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import alignlab.configs.resolvers  # noqa: F401  and whatever imports torchvision comes after the package
from alignlab.configs.command_line import arguments
from tiny_run import REPOSITORY

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

# Tests compose thousands of configs, of which reading YAML is a third; libyaml's reader gives the same values.
yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@pytest.fixture(autouse=True, scope="session")
def _signals_as_in_a_terminal() -> None:
    """Background shells and nohup switch these off, and so for all that the tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def composed() -> Callable[..., DictConfig]:
    """`composed("model=clip", ...)`: the config that train.py, or another program, would get."""

    def make(*overrides: str, program: str = "train") -> DictConfig:
        with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
            return compose(program, overrides=arguments(overrides))

    return make


@pytest.fixture
def prepared() -> Iterator[Callable[..., DictConfig]]:
    """`prepared(run_dir, *overrides)`: a composed config, with Hydra's state as in a job that writes to `run_dir`."""
    state, handlers = HydraConfig.instance().cfg, {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}

    def make(run_dir: Path, *overrides: str, program: str = "train") -> DictConfig:
        run_dir.mkdir(parents=True, exist_ok=True)
        with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
            cfg = compose(program, overrides=arguments(overrides), return_hydra_config=True)
        with open_dict(cfg):
            cfg.hydra.runtime.output_dir = str(run_dir)
            HydraConfig.instance().cfg = cfg.copy()
            del cfg["hydra"]
        return cfg

    yield make
    HydraConfig.instance().cfg = state
    for number, handler in handlers.items():  # Lightning replaces them
        signal.signal(number, handler)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """`small_disk("2m")`: a folder that holds two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("nothing can be mounted here")
        return folder

    yield mount
    subprocess.run(["umount", "-l", str(folder)], capture_output=True)
