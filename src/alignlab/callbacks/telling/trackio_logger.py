"""trackio, a local and free tracker with Weights & Biases' calls, as a Lightning logger."""

import math
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only


class TrackioLogger(Logger):
    """Logs to trackio's data base on this machine (`trackio show` opens it; `TRACKIO_DIR` says where it lies).

    Args:
        save_dir: the run directory; nothing is written there.
        project: runs of one project stand beside each other.
        name: of the run; a second run of the same name gets trackio's suffix.

    Raises:
        ImportError: trackio isn't installed.
    """

    def __init__(self, save_dir: str, project: str = "alignlab", name: str | int | None = None) -> None:
        super().__init__()
        import trackio  # an extra

        self._trackio, self._project, self._name = trackio, project, None if name is None else str(name)
        self._save_dir, self._run, self._settings = save_dir, None, {}

    @property
    def name(self) -> str:
        return self._project

    @property
    def version(self) -> str | None:
        return self._name

    @property
    def experiment(self) -> Any:
        """The run, begun when it is first asked for."""
        if self._run is None:
            self._run = self._trackio.init(project=self._project, name=self._name, config=self._settings or None)
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The run's config; before the first metric."""
        self._settings |= {str(key).replace("_target_", "target"): _plain(value) for key, value in dict(params).items()}
        if self._run is not None:  # Lightning has asked for it; trackio writes the config with the first metrics
            self._run.config |= self._settings

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self.experiment.log(finite, step=step)

    @rank_zero_only
    def log_picture(self, name: str, file: Path, step: int) -> None:
        """A picture's file."""
        self.experiment.log({name: self._trackio.Image(str(file), caption=file.name)}, step=step)

    @rank_zero_only
    def log_table(self, name: str, columns: list[str], rows: list[list[Any]], step: int) -> None:
        """A table of texts and numbers."""
        texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
        self.experiment.log({name: self._trackio.Table(columns=columns, data=texts)}, step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Ends the run."""
        if self._run is not None:
            self._run.finish()
            self._run = None


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
