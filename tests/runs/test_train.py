"""A run from config to run directory, its ends (ok, diverged, failed, interrupted), resuming and loading it."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from alignlab.runs import train as run
from alignlab.runs.building import load_system
from alignlab.systems.method_system import MethodSystem
from tiny_run import REPOSITORY, TINY

import pytest
import torch
from omegaconf import DictConfig

Prepare = Callable[..., DictConfig]
RESULT_KEYS = {
    *("status", "reason", "objective", "metrics", "steps", "seconds", "samples_per_second", "peak_memory_bytes"),
    *("notes", "seed", "git_revision", "versions", "world_size", "plugins", "corpora", "parameters"),
}


def result_of(run_dir: Path) -> dict:
    return json.loads((run_dir / "result.json").read_text())


def rows_of(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_its_directory_and_its_repetition(
    prepared: Prepare, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ("first", "second"):
        run.train(prepared(tmp_path / name, *TINY, "objective=val/loss", "seed=3"))
    first = tmp_path / "first"
    for file in (
        "config.yaml",
        "metrics.csv",
        "result.json",
        "train.log",
        "samples/curves.png",
        "tokenizer/tokenizer.json",
    ):
        assert (first / file).stat().st_size > 0
    assert not list(first.rglob("*.tmp")), "temporary files are renamed"

    result = result_of(first)
    assert set(result) == RESULT_KEYS
    assert (result["status"], result["reason"], result["steps"], result["seed"]) == ("ok", None, 4, 3)
    assert result["objective"] == result["metrics"]["val/loss"]
    assert result["peak_memory_bytes"] > 50e6 and result["seconds"] > 0 and result["samples_per_second"] > 0

    rows = rows_of(first)
    assert [int(row["step"]) for row in rows] == [0, 1, 2, 3]
    assert all(math.isfinite(float(row["train/loss"])) and float(row["lr"]) > 0 for row in rows)
    assert [bool(row["val/loss"]) for row in rows] == [False, True, False, True]
    losses = [[row["train/loss"], row["val/loss"]] for row in rows]
    assert losses == [[row["train/loss"], row["val/loss"]] for row in rows_of(tmp_path / "second")]

    checkpoint = torch.load(first / "checkpoints" / "last.ckpt", weights_only=True)
    assert (checkpoint["global_step"], checkpoint["config"]["data"]["batch_size"]) == (4, 8)
    assert (first / "checkpoints" / "best.ckpt").exists()
    shown = capsys.readouterr().out
    assert "val/loss" in shown and str(first / "samples" / "curves.png") in shown.replace("\n", "")

    system, datamodule = load_system(first)
    best = torch.load(first / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert not system.training
    assert all(torch.equal(value, best[name]) for name, value in system.state_dict().items())
    assert datamodule.vocabulary.size > 0

    saved = json.loads((first / "tokenizer" / "tokenizer.json").read_text())
    ids = saved["model"]["vocab"]
    ids["bee"], ids["cow"] = ids["cow"], ids["bee"]  # as if tokenizers had been trained otherwise then
    (first / "tokenizer" / "tokenizer.json").write_text(json.dumps(saved))
    (first / "tokenizer" / "SHA256SUMS").unlink()  # which would refuse it
    assert load_system(first)[1].tokenizer.get_vocab() == ids


def test_resume_goes_on_in_the_same_directory(prepared: Prepare, tmp_path: Path) -> None:
    run.train(prepared(tmp_path, *TINY, "trainer.max_steps=3"))
    rows, tokenizer = rows_of(tmp_path), (tmp_path / "tokenizer").stat().st_ino
    assert rows[-1]["val/loss"], "the last step ends with a validation, whatever the interval"
    with (tmp_path / "metrics.csv").open(
        "a", newline=""
    ) as file:  # as if the run had gone on after its last checkpoint
        csv.DictWriter(file, rows[0]).writerow(rows[-1] | {"step": "3", "train/loss": "99.0"})
    run.train(prepared(tmp_path, *TINY, "trainer.max_steps=5", f"resume={tmp_path}"))
    assert [int(row["step"]) for row in rows_of(tmp_path)] == [0, 1, 2, 3, 4]
    assert [row["train/loss"] for row in rows_of(tmp_path)][:3] == [row["train/loss"] for row in rows]
    assert "99.0" not in [row["train/loss"] for row in rows_of(tmp_path)]
    assert result_of(tmp_path)["steps"] == 5
    assert (tmp_path / "tokenizer").stat().st_ino == tokenizer, "another rank may be reading it"


def test_bare_weights_to_start_from(prepared: Prepare, tmp_path: Path) -> None:
    run.train(prepared(tmp_path / "a", *TINY, "trainer.max_steps=1"))
    weights = torch.load(tmp_path / "a" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    torch.save({"state_dict": weights}, tmp_path / "weights.ckpt")
    start = f"ckpt_path={tmp_path}/weights.ckpt"
    run.train(prepared(tmp_path / "b", *TINY, "trainer.max_steps=1", "optim.lr=1e-30", "seed=1", start))
    assert result_of(tmp_path / "b")["steps"] == 1
    moved = torch.load(tmp_path / "b" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for name, value in moved.items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=1e-20)
    with pytest.raises(ValueError, match="doesn't fit the model"):
        run.train(prepared(tmp_path / "c", *TINY, "model.net.embed_dim=32", start))


def test_a_loss_that_is_not_finite(prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = MethodSystem.training_step
    monkeypatch.setattr(MethodSystem, "training_step", lambda *args: step(*args) * torch.nan)
    result = run.train(prepared(tmp_path, *TINY, "objective=val/loss"))
    assert math.isnan(result.objective)
    found = result_of(tmp_path)
    assert (found["status"], found["objective"], found["steps"]) == ("diverged", None, 0)
    assert found["reason"] == "loss is nan at step 0: first in the loss"
    monkeypatch.setattr(MethodSystem, "log", _log_nan(MethodSystem.log))
    run.train(prepared(tmp_path / "2", *TINY, "objective=val/loss", "callbacks.nan_report=null"))
    assert result_of(tmp_path / "2")["reason"] == "train/loss is nan at step 4", (
        "without the report it is noticed at the end"
    )


def _log_nan(log: Callable) -> Callable:
    def logged(self: MethodSystem, name: str, value: object, *args: object, **kwargs: object) -> None:
        log(self, name, value * torch.nan if name == "train/loss" else value, *args, **kwargs)

    return logged


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["data.batch_size=0"], "ValueError: "),
        (["objective=val/nothing"], "ValueError: objective=val/nothing was never logged; there are "),
        (["ckpt_path=nowhere.ckpt"], "ValueError: ckpt_path: there is no checkpoint nowhere.ckpt"),
        (["trainer.devices=0"], "ValueError: "),
    ],
)
def test_bad_input(prepared: Prepare, tmp_path: Path, overrides: list[str], reason: str) -> None:
    with pytest.raises(ValueError):
        run.train(prepared(tmp_path, *TINY, "trainer.max_steps=1", *overrides))
    result = result_of(tmp_path)
    assert result["status"] == "failed"
    assert result["reason"].startswith(reason)
    assert "Traceback" in (tmp_path / "train.log").read_text()


def test_a_second_ctrl_c_breaks_into_a_step(prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = MethodSystem.training_step

    def interrupted(self: MethodSystem, batch: object, index: int) -> torch.Tensor:
        if self.trainer.global_step == 3:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch, index)

    monkeypatch.setattr(MethodSystem, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.train(prepared(tmp_path, *TINY))
    result = result_of(tmp_path)
    assert (result["status"], result["reason"], result["steps"]) == ("interrupted", "Ctrl-C at step 3", 3)
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert saved == 2, "the state amid a step isn't saved"


@pytest.mark.distributed
def test_bad_input_on_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "train.py", *TINY, "data.batch_size=0", f"hydra.run.dir={tmp_path}"]
    hydras_own = os.environ | {"HYDRA_FULL_ERROR": "0"}
    failed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env=hydras_own)
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr
    assert failed.stderr.startswith("error: ") and "data.batch_size" in failed.stderr
    assert failed.stderr.splitlines()[-1] == f"The traceback is in {tmp_path}/train.log"


@pytest.mark.distributed
def test_two_processes_from_one_command(tmp_path: Path) -> None:
    command = [sys.executable, "train.py", *TINY, "trainer=ddp", "trainer.max_steps=2", f"hydra.run.dir={tmp_path}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    result = result_of(tmp_path)
    expected = torch.cuda.device_count() or 2
    assert (result["status"], result["world_size"], result["steps"]) == ("ok", expected, 2)
    assert [int(row["step"]) for row in rows_of(tmp_path)] == [0, 1]
    assert done.stdout.count("run directory  ") == 1, "only rank zero prints"
    assert done.stdout.startswith("run directory ") and done.stdout.count("; loading torch") == 1, "the first line"
