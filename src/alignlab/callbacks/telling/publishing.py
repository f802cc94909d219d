"""What loggers get besides numbers: the config, so that runs can be sorted by it, revision and command, and at the end
pictures and tables of samples.
"""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from alignlab.callbacks.meters.metrics_csv import MetricsCsv

log = logging.getLogger(__name__)

MOST_ROWS = 100  # of a table
Table = tuple[list[str], list[list[Any]]]  # columns, rows


class Publishing(Callback):
    """Hands each logger but `metrics.csv` the settings when training starts, and `samples/` when it has ended.

    Ranks: rank zero alone. A logger that fails at the end is said and costs the run nothing.

    Args:
        settings: dotted key -> value, of the whole config.
        about: revision and command.
    """

    def __init__(self, settings: Mapping[str, Any], about: Mapping[str, str]) -> None:
        self.settings, self.about = dict(settings), dict(about)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.is_global_zero:
            for logger in _others(trainer):
                logger.log_hyperparams({**self.settings, **self.about})

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        folder = Path(trainer.default_root_dir) / "samples"
        if not trainer.is_global_zero:
            return
        for logger in _others(trainer):
            try:
                self._publish(logger, trainer, folder)
            except Exception as error:  # a server that has gone must not fail a run that has ended
                log.warning("%s didn't take the samples: %s", type(logger).__name__, str(error).split("\n")[0])

    def _publish(self, logger: Logger, trainer: lightning.Trainer, folder: Path) -> None:
        step = trainer.global_step
        if type(logger).__name__ == "TensorBoardLogger":  # which shows settings beside results only
            known = trainer.callback_metrics.items()
            finals = {name: float(value) for name, value in known if name.startswith(("val/", "train/loss"))}
            logger.log_hyperparams({**self.settings, **self.about}, finals)
        picture, table = SENDS.get(type(logger).__name__, (None, None))
        for file in sorted(folder.glob("[!.]*.png")) if picture else ():
            picture(logger, file, step)
        for file in sorted(folder.glob("[!.]*.jsonl")) if table else ():
            if read := _table(file):
                table(logger, file.stem, read, step)


def _others(trainer: lightning.Trainer) -> list[Logger]:
    return [logger for logger in trainer.loggers if not isinstance(logger, MetricsCsv)]


def _table(file: Path) -> Table | None:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[:MOST_ROWS] if line.strip()]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_plain(row.get(name)) for name in columns] for row in rows]
    return (columns, cells) if rows else None


def _plain(value: Any) -> Any:
    plain = value is None or isinstance(value, str | int | float)
    return value if plain else json.dumps(value, ensure_ascii=False)


def _tensorboard_picture(logger: Any, file: Path, step: int) -> None:
    import numpy as np
    from PIL import Image

    with Image.open(file) as picture:
        logger.experiment.add_image(f"samples/{file.stem}", np.asarray(picture.convert("RGB")), step, dataformats="HWC")


def _tensorboard_table(logger: Any, name: str, table: Table, step: int) -> None:
    columns, rows = table

    def line(cells: list[Any]) -> str:
        texts = ("" if cell is None else str(cell) for cell in cells)
        return "| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in texts) + " |"

    written = [line(columns), "|" + "---|" * len(columns), *map(line, rows)]
    logger.experiment.add_text(f"samples/{name}", "\n".join(written), step)


def _wandb_picture(logger: Any, file: Path, step: int) -> None:
    logger.log_image(f"samples/{file.stem}", [str(file)])


def _wandb_table(logger: Any, name: str, table: Table, step: int) -> None:
    texts = [["" if cell is None else str(cell) for cell in row] for row in table[1]]  # one type a column
    logger.log_table(f"samples/{name}", columns=table[0], data=texts)


def _mlflow_picture(logger: Any, file: Path, step: int) -> None:
    logger.experiment.log_artifact(logger.run_id, str(file), "samples")


def _mlflow_table(logger: Any, name: str, table: Table, step: int) -> None:
    columns, rows = table
    content = {"columns": columns, "data": rows}  # as MLflow writes tables itself, with pandas
    logger.experiment.log_dict(logger.run_id, content, f"samples/{name}.json")


def _trackio_picture(logger: Any, file: Path, step: int) -> None:
    logger.log_picture(f"samples/{file.stem}", file, step)


def _trackio_table(logger: Any, name: str, table: Table, step: int) -> None:
    logger.log_table(f"samples/{name}", *table, step)


# Logger -> how it takes a picture and a table.
SENDS: dict[str, tuple[Callable[[Any, Path, int], None], Callable[[Any, str, Table, int], None]]] = {
    "TensorBoardLogger": (_tensorboard_picture, _tensorboard_table),
    "WandbLogger": (_wandb_picture, _wandb_table),
    "MLFlowLogger": (_mlflow_picture, _mlflow_table),
    "TrackioLogger": (_trackio_picture, _trackio_table),
}
