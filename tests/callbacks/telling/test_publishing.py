"""What loggers get: the config, revision and command at the start, pictures and tables at the end; several at once."""

import json
import sqlite3
from pathlib import Path

from alignlab.callbacks.telling.publishing import Publishing
from alignlab.runs.errors import cause
from tiny_run import REPOSITORY

import lightning
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf
from PIL import Image
from torch.utils.data import DataLoader

SETTINGS = {"optim.lr": 0.001, "model._target_": "alignlab.methods.clip.ClipMethod", "optim.betas": [0.9, 0.98]}
ABOUT = {"git_revision": "abc123", "command": "python train.py model=clip"}


class Line(lightning.LightningModule):
    """One weight."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(1, 1)

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        loss = self.net(batch).square().mean()
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(run: Path, loggers: list[Logger]) -> None:
    """Two steps, and samples that a run would leave."""
    (run / "samples").mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(run / "samples" / "retrieval.png")
    row = {"prompt": "a | film", "before": None, "after": "good\nbad", "scores": [0.5]}
    (run / "samples" / "answers.jsonl").write_text(json.dumps(row) + "\n")
    trainer = lightning.Trainer(
        max_steps=2, accelerator="cpu", logger=loggers, callbacks=[Publishing(SETTINGS, ABOUT)], log_every_n_steps=1,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, default_root_dir=str(run),
    )  # fmt: skip
    trainer.fit(Line(), DataLoader([torch.ones(1)] * 2, batch_size=None))


def logger_of(choice: str, run: Path, **changes: str) -> Logger:
    """The logger of conf/logger, as a run builds it."""
    node = OmegaConf.load(REPOSITORY / "conf" / "logger" / f"{choice}.yaml")[choice]
    return instantiate(OmegaConf.merge(node, changes), save_dir=str(run), _convert_="all")


class Recorded(Logger):
    """A logger that can do nothing but numbers, and one whose server has gone."""

    name = version = ""

    def __init__(self) -> None:
        super().__init__()
        self.settings: dict = {}

    def log_hyperparams(self, params: dict) -> None:
        self.settings = dict(params)

    def log_metrics(self, metrics: dict, step: int | None = None) -> None:
        pass


class WandbLogger(Recorded):
    """By its name one that takes pictures."""

    def log_image(self, key: str, images: list) -> None:
        raise ConnectionError("the server has gone\nfor good")


def test_every_logger_gets_the_settings_and_a_server_that_has_gone_costs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loggers = [Recorded(), WandbLogger()]
    fit(tmp_path, loggers)
    assert all(logger.settings == SETTINGS | ABOUT for logger in loggers)
    assert [m for m in caplog.messages if m == "WandbLogger didn't take the samples: the server has gone"]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_missing_extra_is_one_line(name: str) -> None:
    missing = InstantiationException(f"Error in call to target\nfull_key: logger.{name}")
    missing.__cause__ = ModuleNotFoundError(f"No module named '{name}'")
    assert str(cause(missing)) == f"logger.{name}: No module named '{name}'; pip install 'alignlab[{name}]'"


def test_several_at_once_take_pictures_and_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # before trackio is imported, which reads it
    for package in ("mlflow", "trackio", "tensorboard", "wandb", "sqlalchemy"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    run, base = tmp_path / "run", tmp_path / "mlflow.db"
    loggers = [
        logger_of("tensorboard", run),
        logger_of("wandb", run, offline=True, name="one"),
        logger_of("mlflow", run, run_name="one", tracking_uri=f"sqlite:///{base}"),
        logger_of("trackio", run, name="one"),
    ]
    fit(run, loggers)
    _tensorboard, _, mlflow, _trackio = loggers
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert tags["images"] == ["samples/retrieval"] and any("samples/answers" in tag for tag in tags["tensors"])
    assert "train/loss" in tags["scalars"]
    params = dict(sqlite3.connect(base).execute("select key, value from params"))
    assert params["optim.lr"] == "0.001" and params["command"] == ABOUT["command"]
    listed = {item.path for item in mlflow.experiment.list_artifacts(mlflow.run_id, "samples")}
    assert listed == {"samples/retrieval.png", "samples/answers.json"}
    data = next((tmp_path / "trackio").glob("alignlab*.db"))
    config = sqlite3.connect(data).execute("select config from configs").fetchone()[0]
    logged = [row[0] for row in sqlite3.connect(data).execute("select metrics from metrics")]
    assert json.loads(config)["optim.lr"] == 0.001 and any(b"samples/answers" in row for row in logged)
    assert list((run / "wandb").rglob("*.png"))
