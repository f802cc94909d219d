"""A signal during training: the step is finished, a checkpoint written, and the resumed run equals the undisturbed one."""

import csv
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

from alignlab.launch.signals import Interrupted
from alignlab.runs import train as run
from alignlab.systems.method_system import MethodSystem
from tiny_run import TINY

import pytest
import torch
from omegaconf import DictConfig

Prepare = Callable[..., DictConfig]


def losses(run_dir: Path) -> list[tuple[str, str, str]]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return [(row["step"], row["train/loss"], row["val/loss"]) for row in csv.DictReader(file)]


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]


def signalled_at(batch: int, number: int, hook: str = "training_step") -> Callable:
    """A hook of the system during which this process gets a signal, once."""
    original, left = getattr(MethodSystem, hook), [batch]

    def replaced(self: MethodSystem, *args: object) -> object:
        if left and self.trainer.global_step == left[0] and not self.trainer.sanity_checking:
            left.pop()
            os.kill(os.getpid(), number)
        return original(self, *args)

    return replaced


@pytest.mark.parametrize(
    ("hook", "at", "steps", "number"),
    [
        ("training_step", 2, 3, signal.SIGTERM),
        ("training_step", 3, 4, signal.SIGINT),
        ("validation_step", 2, 3, signal.SIGUSR1),
    ],
)
def test_interrupted_and_resumed(
    prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: str, at: int, steps: int, number: int
) -> None:
    overrides = [*TINY, "trainer.max_steps=6", "trainer.val_check_interval=2"]
    run.train(prepared(tmp_path / "undisturbed", *overrides))
    monkeypatch.setattr(MethodSystem, hook, signalled_at(at, number, hook))
    with pytest.raises(Interrupted) as stopped:
        run.train(prepared(tmp_path / "b", *overrides))
    assert stopped.value.exit_code == 128 + number
    result = json.loads((tmp_path / "b" / "result.json").read_text())
    assert (result["status"], result["steps"]) == ("interrupted", steps)
    assert result["reason"] == f"{signal.Signals(number).name} at step {steps}"
    assert torch.load(tmp_path / "b" / "checkpoints" / "last.ckpt", weights_only=False)["global_step"] == steps
    assert [int(step) for step, *_ in losses(tmp_path / "b")] == list(range(steps))

    run.train(prepared(tmp_path / "b", *overrides, f"resume={tmp_path}/b"))
    assert losses(tmp_path / "b") == losses(tmp_path / "undisturbed")
    undisturbed = weights(tmp_path / "undisturbed")
    assert all(torch.equal(value, undisturbed[name]) for name, value in weights(tmp_path / "b").items())


def test_half_an_accumulated_step_is_finished(
    prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MethodSystem, "training_step", signalled_at(1, signal.SIGTERM))
    with pytest.raises(Interrupted):
        run.train(prepared(tmp_path, *TINY, "+trainer.accumulate_grad_batches=2", "trainer.val_check_interval=null"))
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=False)["global_step"] == 2


def test_a_signal_before_training_ends_at_once(
    prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "build", lambda cfg, run_dir: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        run.train(prepared(tmp_path, *TINY))
    assert json.loads((tmp_path / "result.json").read_text())["reason"] == "SIGTERM at step 0"


def test_a_signal_in_the_last_step_is_too_late(
    prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MethodSystem, "training_step", signalled_at(3, signal.SIGTERM))
    assert run.train(prepared(tmp_path, *TINY, "trainer.max_steps=4")).status == "ok"
