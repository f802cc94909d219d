"""What happens around Hydra's own work: a directory in use is refused before Hydra writes there, a sweep ends with its
table.
"""

import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from alignlab.launch.environment import launch
from alignlab.launch.run_lock import Busy, refuse_if_busy
from alignlab.launch.sweep import Sweep


class HydraEvents(Callback):
    """Ends the program with a message; Hydra would turn an exception into a warning."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        if launch().rank == 0:  # rank zero has it for the others too
            HydraConfig.instance().set_config(config)  # the directory's name asks for the choice of a group
            _refuse_if_busy(config.hydra.run.dir)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        HydraConfig.instance().set_config(config)
        _refuse_if_busy(config.hydra.sweep.dir)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Prints the table; exit code 1 if no job at all came to a good end."""
        sweep = Sweep.read(Path(config.hydra.sweep.dir))
        if not sweep.rows:
            return
        sweep.show()
        if all(row.status == "failed" for row in sweep.rows.values()):
            sys.exit(1)


def _refuse_if_busy(directory: str) -> None:
    try:
        refuse_if_busy(Path(directory))
    except Busy as error:
        print("error:", error, file=sys.stderr)
        sys.exit(2)
