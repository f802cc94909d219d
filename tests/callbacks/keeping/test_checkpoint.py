"""When checkpoints are written, what is in one, and that a failed write leaves nothing behind."""

import json
from collections.abc import Callable
from pathlib import Path

import kills
from alignlab.callbacks.keeping.checkpoint import Checkpoints, StreamedIO
from alignlab.runs import train as run

import pytest
import torch
from omegaconf import DictConfig

Prepare = Callable[..., DictConfig]


def test_interval_by_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Checkpoints(share=0.01)
    own.seconds = [2.0]
    own._clock.step = 10
    monkeypatch.setattr(own._clock, "seconds", lambda: 5.0)
    assert own._interval(20) == 400, "2 s in 400 steps of half a second are 1 %"
    assert own._after(20, 400) == 420
    assert Checkpoints(every_n_steps=7)._after(15, 7) == 21, "fixed intervals count from the beginning"


@pytest.mark.parametrize("wrong", [{"keep_last": 0}, {"keep_best": -2}, {"share": 0.0}, {"every_n_steps": 0}])
def test_bad_settings(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"keep_last|share"):
        Checkpoints(**wrong)


def test_what_a_run_keeps(prepared: Prepare, tmp_path: Path) -> None:
    settings = ("trainer.max_steps=22", "data.num_workers=0", "callbacks.checkpoint.every_n_steps=4")
    run.train(prepared(tmp_path, *kills.TINY, *settings))
    index = {row["step"]: row for row in json.loads((tmp_path / "checkpoints" / "index.json").read_text())}
    assert sorted(index)[-2:] == [21, 22] or sorted(index)[-2:] == [20, 22], "the newest, and the one before"
    assert "val/loss" in index[22]["metrics"] and index[22]["bytes"] > 0
    best = min((row for row in index.values() if row["metrics"]), key=lambda row: row["metrics"]["val/loss"])
    saved = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert saved["global_step"] == best["step"]
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert {"config", "metrics", "random", "loops", "state_dict", "optimizer_states", "lr_schedulers"} <= set(saved)
    assert {"queue.image", "queue.pointer", "twin.teacher.temperature"} & set(saved["state_dict"])
    assert [set(states) for states in saved["random"]["ranks"]] == [{"torch", "numpy", "python"}]
    assert saved["loops"]["fit_loop"]["state_dict"]["combined_loader"] == [{"epoch": 2, "batch": 6, "joint": 8}]
    assert saved["metrics"]["val/loss"] == index[22]["metrics"]["val/loss"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    StreamedIO().save_checkpoint({"step": 1}, file)
    with pytest.raises(Exception, match="pickle"):
        StreamedIO().save_checkpoint({"step": 2, "function": lambda: None}, file)
    assert torch.load(file, weights_only=True) == {"step": 1}
    assert [f.name for f in tmp_path.iterdir()] == ["a.ckpt"]
