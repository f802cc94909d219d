"""Resuming: after kills at any moment, amid epochs, from the checkpoint before a damaged one; the end is that of an undisturbed run, bit for bit."""

import json
from collections.abc import Callable
from pathlib import Path

import kills
from alignlab.callbacks.keeping.checkpoint_folder import read_index
from alignlab.runs import resuming
from alignlab.runs import train as run

import pytest
from omegaconf import DictConfig

Prepare = Callable[..., DictConfig]
STEPS = "trainer.max_steps=20"


def stop_at(prepared: Prepare, run_dir: Path, step: int, *overrides: str) -> None:
    """A run whose config says 20 steps, stopped dead after a step, with no chance to save."""

    class Dead(BaseException):
        pass

    from alignlab.callbacks.meters.learning_rate import LearningRate

    hook = LearningRate.on_train_batch_start

    def dies(self: LearningRate, trainer: object, *rest: object) -> None:
        if trainer.global_step == step:
            raise Dead
        hook(self, trainer, *rest)

    LearningRate.on_train_batch_start = dies
    try:
        with pytest.raises(Dead):
            run.train(prepared(run_dir, *kills.TINY, STEPS, *overrides))
    finally:
        LearningRate.on_train_batch_start = hook


def resume(prepared: Prepare, run_dir: Path) -> dict:
    overrides = [f"resume={run_dir}"]
    run.train(resuming.resumed(prepared(run_dir, *overrides), overrides))
    return json.loads((run_dir / "result.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Undisturbed runs by their overrides, made once."""
    return {}


def undisturbed(prepared: Prepare, whole: dict[str, Path], folder: Path, *overrides: str) -> Path:
    key = " ".join(overrides)
    if key not in whole:
        whole[key] = folder / "undisturbed"
        run.train(prepared(whole[key], *kills.TINY, STEPS, *overrides))
    return whole[key]


@pytest.mark.parametrize(
    ("overrides", "step"),
    [
        (("data.num_workers=0",), 13),  # the checkpoint at 12 lies amid the second epoch of 8 batches
        (("data.num_workers=0",), 17),  # the one at 15 is followed by a validation-free end of the epoch
        (("data.num_workers=1", "+trainer.accumulate_grad_batches=2"), 8),  # validation after batch 7 amid a step
        (("data.num_workers=0", "callbacks.checkpoint.every_n_steps=8"), 9),  # between two epochs
        (("data.num_workers=0", "callbacks.checkpoint.every_n_steps=7"), 7 + 1),  # where a validation lies
    ],
)
def test_resumed_equals_undisturbed(
    prepared: Prepare, tmp_path: Path, whole: dict[str, Path], overrides: tuple[str, ...], step: int
) -> None:
    expected = undisturbed(prepared, whole, tmp_path, *overrides)
    stop_at(prepared, tmp_path / "run", step, *overrides)
    result = resume(prepared, tmp_path / "run")
    assert kills.differences(tmp_path / "run", expected) == []
    metrics = json.loads((expected / "result.json").read_text())["metrics"]
    assert (result["status"], result["steps"], result["notes"]) == ("ok", 20, [])
    assert {n: v for n, v in result["metrics"].items() if n not in kills.WALL_CLOCK} == {
        n: v for n, v in metrics.items() if n not in kills.WALL_CLOCK
    }


def test_from_the_one_before_a_truncated_checkpoint(
    prepared: Prepare, tmp_path: Path, whole: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    expected = undisturbed(prepared, whole, tmp_path, "data.num_workers=0")
    stop_at(prepared, tmp_path / "run", 13, "data.num_workers=0")
    newest = tmp_path / "run" / "checkpoints" / "step-00000012.ckpt"
    newest.write_bytes(newest.read_bytes()[:-1000])
    (note,) = resume(prepared, tmp_path / "run")["notes"]
    assert note.startswith("resume: step-00000012.ckpt is cut off: ") and note.endswith("from step-00000009.ckpt")
    assert note in caplog.text
    assert kills.differences(tmp_path / "run", expected) == []


def test_damaged_records_stop_nothing(prepared: Prepare, tmp_path: Path, whole: dict[str, Path]) -> None:
    expected = undisturbed(prepared, whole, tmp_path, "data.num_workers=0")
    stop_at(prepared, tmp_path / "run", 17, "data.num_workers=0")
    run_dir = tmp_path / "run"
    metrics, index = run_dir / "metrics.csv", run_dir / "checkpoints" / "index.json"
    lines = metrics.read_bytes().split(b"\r\n")
    lines[5] += b",1.0,2.0"
    metrics.write_bytes(b"\r\n".join(lines))
    index.write_text('[{"file": ')
    (run_dir / "result.json").write_text("[]")
    (run_dir / "samples").write_text("no folder")
    result = resume(prepared, run_dir)
    assert (result["status"], result["steps"]) == ("ok", 20)
    assert [note.partition(";")[0] for note in result["notes"]] == [
        "resume: metrics.csv has 1 lines that are no rows of it",
        "resume: index.json can't be read",
    ]
    assert kills.unequal(run_dir, expected, (*kills.STATE, "loops")) == []
    assert [row["step"] for row in kills.rows(run_dir)] == [str(step) for step in range(20) if step != 4]
    known = [[(e.step, e.metrics) for e in read_index(each / "checkpoints")] for each in (run_dir, expected)]
    assert known[0] == known[1]


def test_before_the_first_checkpoint_and_after_the_end(
    prepared: Prepare, tmp_path: Path, whole: dict[str, Path]
) -> None:
    expected = undisturbed(prepared, whole, tmp_path, "data.num_workers=0")
    stop_at(prepared, tmp_path / "run", 2, "data.num_workers=0")
    assert resume(prepared, tmp_path / "run")["notes"] == ["resume: no checkpoint yet: going on from the beginning"]
    assert kills.differences(tmp_path / "run", expected) == []
    before = (tmp_path / "run" / "metrics.csv").read_bytes()
    result = resume(prepared, tmp_path / "run")
    assert (result["status"], result["steps"]) == ("ok", 20)
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == before
    assert result["metrics"]["val/loss"] > 0, "metrics are those of the run, though nothing was left to do"


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("trainer.max_steps=13", "trainer.max_steps=20"),  # ends amid an epoch of 8 batches
        ("trainer.max_steps=16", "trainer.max_steps=20"),  # ends with one
        ("+trainer.max_epochs=2", "+trainer.max_epochs=3"),
    ],
)
def test_a_run_that_is_made_longer(prepared: Prepare, tmp_path: Path, first: str, then: str) -> None:
    common = (*kills.TINY, "data.num_workers=0", "optim.schedule=constant")
    common += ("trainer.max_steps=-1",) if "epochs" in first else ()
    run.train(prepared(tmp_path / "halves", *common, first))
    run.train(prepared(tmp_path / "halves", *common, then, f"resume={tmp_path / 'halves'}"))
    run.train(prepared(tmp_path / "whole", *common, then))
    assert kills.unequal(tmp_path / "halves", tmp_path / "whole") == []
    training = [
        [{name: value for name, value in row.items() if "val/" not in name} for row in kills.rows(tmp_path / name)]
        for name in ("halves", "whole")
    ]
    assert training[0] == training[1], "all but the validation at the end of the first half"


def test_nothing_readable(prepared: Prepare, tmp_path: Path) -> None:
    stop_at(prepared, tmp_path / "run", 7, "data.num_workers=0")
    for file in (tmp_path / "run" / "checkpoints").glob("step-*.ckpt"):
        file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"no checkpoint in .* can be read"):
        resume(prepared, tmp_path / "run")


@pytest.mark.distributed
def test_three_kills(tmp_path: Path) -> None:
    report = kills.kill_and_compare(["trainer=cpu", "data.num_workers=1", "trainer.max_steps=30"], 3, tmp_path, seed=1)
    assert report.kills == 3 and report.files_checked > 10


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides", [("data.num_workers=1",), ("data.num_workers=0", "+trainer.accumulate_grad_batches=2")]
)
def test_twenty_kills(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    report = kills.kill_and_compare(["trainer=cpu", *overrides, "trainer.max_steps=60"], 20, tmp_path)
    assert report.kills == 20 and report.amid_checkpoints >= 3


@pytest.mark.slow
def test_twenty_kills_of_two_processes(tmp_path: Path) -> None:
    overrides = ["trainer=ddp", "data.num_workers=0", "trainer.max_steps=30"]
    assert kills.kill_and_compare(overrides, 20, tmp_path, ddp=True).kills == 20
