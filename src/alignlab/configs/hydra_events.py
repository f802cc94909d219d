"""What happens around Hydra's own work: a directory in use is refused before Hydra writes there, a sweep ends with its
table.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, flag_override

from alignlab.launch.admission import refuse_further_rank, refuse_if_taken, refuse_ranks, refuse_unwritable
from alignlab.launch.environment import in_batch_script, launch
from alignlab.launch.run_lock import refuse_if_busy
from alignlab.launch.sweep import Sweep


class HydraEvents(Callback):
    """Ends the program with a message; Hydra would turn an exception into a warning."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        HydraConfig.instance().set_config(config)  # the directory's name asks for the choice of a group
        started, kind = launch(), kind_of(config)
        with _refusals():
            if study := config.hydra.runtime.choices.get("study"):
                raise ValueError(f"study={study} is many runs; type python train.py -m study={study}")
            if kind == "training" and config.resume is None:  # a resumed run has its own trainer, which is asked later
                refuse_ranks(config.trainer)
            if started.rank == 0:
                if started.starter == "user" and not in_batch_script() and _is_default(config):
                    _reserve(config)
                _refuse(Path(config.hydra.run.dir), config.resume, kind)
                refuse_unwritable(Path(config.hydra.run.dir), "output" if kind == "inference" else "hydra.run.dir")
            elif started.starter == "slurm":
                refuse_further_rank(Path(config.hydra.run.dir), config.resume, kind)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        HydraConfig.instance().set_config(config)
        with _refusals():
            _refuse(Path(config.hydra.sweep.dir), None, kind_of(config), key="hydra.sweep.dir")
            refuse_unwritable(Path(config.hydra.sweep.dir), "hydra.sweep.dir")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Prints the table; exit code 1 if no job at all came to a good end."""
        sweep = Sweep.read(Path(config.hydra.sweep.dir))
        if not sweep.rows:
            return
        if not config.hydra.runtime.choices.get("study"):  # which has a table of its own
            sweep.show()
        if all(row.status == "failed" for row in sweep.rows.values()):
            sys.exit(1)


def kind_of(config: DictConfig) -> str:
    """What kind of run a composed config is for, in the words of `launch.admission`."""
    return "chain" if "stages" in config else "inference" if "task" in config else "training"


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        print("error:", error, file=sys.stderr)
        sys.exit(2)


def _refuse(directory: Path, resume: str | None, kind: str, key: str = "") -> None:
    refuse_if_busy(directory)
    refuse_if_taken(directory, resume, kind, key)


def _is_default(config: DictConfig) -> bool:
    """Whether the directory is a new one, named after the time."""
    named = config.resume is not None or config.get("output") is not None
    return not named and OmegaConf.is_interpolation(config.hydra.run, "dir")


def _reserve(config: DictConfig) -> None:
    """Makes the directory this run's own: another may have begun in the same second."""
    wanted = config.hydra.run.dir
    for number in count(2):
        try:
            return Path(config.hydra.run.dir).mkdir(parents=True)
        except OSError:
            if not Path(config.hydra.run.dir).is_dir():  # it can't be made, which is said later
                return None
            with flag_override(config.hydra, "readonly", False):
                config.hydra.run.dir = f"{wanted}_{number}"
