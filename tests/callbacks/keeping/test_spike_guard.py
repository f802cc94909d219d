"""With a poisoned batch in the data, training with a guard ends where training without that batch, or without that window, ends: bit for bit."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import kills
from alignlab.callbacks.keeping.spike_guard import SpikeGuard
from alignlab.runs import train as run
from tiny_run import REPOSITORY

import pytest
from omegaconf import DictConfig

Prepare = Callable[..., DictConfig]
POISONED = 46  # of 16 scenes known by heart: the loss jumps from 0.005 to 11
CLIP = (
    *("model=clip", "callbacks=default", "data.batch_size=8", "data.num_val=16", "data.image_size=16"),
    *("trainer.log_every_n_steps=1", "callbacks.curves=null", "model.net.vision.width=32", "model.net.text.width=32"),
    *("optim.lr=1e-3", "optim.warmup_steps=5"),
)
# Pixels that are no numbers, in a net with a teacher and queues.
ALBEF = (*kills.TINY, "+data.poison=pixels")
RUN = (
    "data._target_=poisoned.PoisonedScenes",
    "data.num_workers=0",
    "data.num_train=1024",
    "+trainer.limit_val_batches=0",
)
GUARD = (
    "callbacks=[default,spike_guard]",
    "+callbacks.spike_guard.min_history=10",
    "callbacks.spike_guard.threshold=8",
)


def events(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "spikes.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("model", "poisoned", "action"),
    [
        pytest.param(CLIP, POISONED, "skip", id="skip-clip"),
        pytest.param(ALBEF, 26, "rollback", id="rollback-albef"),
        pytest.param(CLIP, POISONED, "rollback", marks=pytest.mark.slow, id="rollback-clip"),
        pytest.param(ALBEF, 26, "skip", marks=pytest.mark.slow, id="skip-albef"),
    ],
)
def test_as_if_it_had_never_been(
    prepared: Prepare, tmp_path: Path, model: tuple[str, ...], poisoned: int, action: str
) -> None:
    steps = poisoned + 4
    common = (*model, *RUN, f"trainer.max_steps={steps}")
    guard = (*GUARD, f"callbacks.spike_guard.action={action}", "callbacks.spike_guard.rollback_steps=6")
    run.train(prepared(tmp_path / "guarded", *common, *guard, f"+data.poisoned=[{poisoned}]"))
    (event,) = events(tmp_path / "guarded")
    assert (event["batch"], event["action"]) == (poisoned, action)
    first, last = event.get("skipped_batches", (poisoned, poisoned))
    assert last == poisoned and (action == "skip" or 6 <= poisoned - first < 12)
    run.train(prepared(tmp_path / "spared", *common, f"+data.left_out={list(range(first, last + 1))}"))
    assert kills.unequal(tmp_path / "guarded", tmp_path / "spared") == []
    assert [row["step"] for row in kills.rows(tmp_path / "guarded")] == [str(step) for step in range(steps)]
    losses = [[row["train/loss"] for row in kills.rows(tmp_path / name)] for name in ("guarded", "spared")]
    assert losses[0] == losses[1]


def test_an_accumulated_step_is_skipped_whole(prepared: Prepare, tmp_path: Path) -> None:
    common = (*ALBEF, *RUN, "trainer.max_steps=18", "+trainer.accumulate_grad_batches=2")
    run.train(prepared(tmp_path / "guarded", *common, *GUARD, "+data.poisoned=[26]"))
    assert [event["step"] for event in events(tmp_path / "guarded")] == [13]
    run.train(prepared(tmp_path / "spared", *common, "+data.left_out=[26,27]"))
    assert kills.unequal(tmp_path / "guarded", tmp_path / "spared") == []


def test_a_resumed_guard_skips_the_same_batch(prepared: Prepare, tmp_path: Path) -> None:
    settings = (*RUN, *GUARD, "+data.poison=pixels", "+data.poisoned=[15]", "optim.schedule=constant")
    common = (*kills.TINY, *settings, "trainer.max_steps=18", "callbacks.checkpoint.every_n_steps=15")
    run.train(prepared(tmp_path / "halves", *common, "trainer.max_steps=15"))
    run.train(prepared(tmp_path / "whole", *common))
    run.train(prepared(tmp_path / "halves", *common, f"resume={tmp_path / 'halves'}"))
    assert kills.unequal(tmp_path / "halves", tmp_path / "whole") == []
    assert events(tmp_path / "halves") == events(tmp_path / "whole")


def test_log_changes_nothing(prepared: Prepare, tmp_path: Path) -> None:
    common = (*CLIP, *RUN, f"trainer.max_steps={POISONED + 3}", f"+data.poisoned=[{POISONED}]")
    run.train(prepared(tmp_path / "a", *common, *GUARD, "callbacks.spike_guard.action=log"))
    run.train(prepared(tmp_path / "b", *common))
    assert kills.unequal(tmp_path / "a", tmp_path / "b") == []
    assert events(tmp_path / "a")[0]["step"] == POISONED
    run.train(prepared(tmp_path / "c", *common[:-1]))
    assert kills.unequal(tmp_path / "b", tmp_path / "c"), "the poison matters"


def test_poison_without_end_ends_the_run(prepared: Prepare, tmp_path: Path) -> None:
    poison = ("+data.poisoned=[20,21,22,23]", "+data.poison=pixels")
    result = run.train(prepared(tmp_path, *CLIP, *RUN, *GUARD, *poison, "+callbacks.spike_guard.max_skips=3"))
    assert (result.status, result.steps) == ("diverged", 20)
    assert result.reason == "spike at step 20 (loss None) and the spike guard: max_skips=3 are used up"
    assert [event["batch"] for event in events(tmp_path)] == [20, 21, 22, 23]


def test_score() -> None:
    guard = SpikeGuard(min_history=4, window=5)
    for loss in (1.0, 2.0, 3.0, 4.0):
        assert guard.score((100.0, 0.0)) == 0.0, "too little to compare with"
        guard.history.append((loss, 0.0))
    # median 2.5, distances 1.5 0.5 0.5 1.5: MAD 1; the second signal has no spread, its floor is 0.05
    assert guard.score((2.5 + 3 * 1.4826, 0.0)) == pytest.approx(3.0, rel=1e-12)
    assert guard.score((2.5, 0.5)) == pytest.approx(10.0, rel=1e-12)
    assert guard.score((float("nan"), 0.0)) == float("inf")


def start_ranks(run_dir: Path, overrides: tuple[str, ...]) -> None:
    """A run of two processes; none of them starts the other, so that the data module of these tests is allowed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    code = "import sys, pathlib, kills; kills.train_here(sys.argv[2:], pathlib.Path(sys.argv[1]))"
    ranks = []
    for rank in range(2):
        own = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        path = os.pathsep.join([str(REPOSITORY / "tests" / "support"), str(REPOSITORY / "src")])
        command = [sys.executable, "-c", code, str(run_dir), *overrides, "trainer=ddp"]
        ranks.append(subprocess.Popen(command, env=os.environ | own | {"PYTHONPATH": path}, cwd=REPOSITORY))
    try:
        assert [process.wait(timeout=120) for process in ranks] == [0, 0]
    finally:
        for process in ranks:
            process.kill()


@pytest.mark.distributed
@pytest.mark.parametrize("action", ["skip", pytest.param("rollback", marks=pytest.mark.slow)])
def test_a_spike_on_one_rank_is_taken_back_on_both(tmp_path: Path, action: str) -> None:
    common = (*CLIP, *RUN, f"trainer.max_steps={POISONED + 5}", "data.batch_size=4")
    guard = (*GUARD, f"callbacks.spike_guard.action={action}", "callbacks.spike_guard.rollback_steps=6")
    start_ranks(tmp_path / "guarded", (*common, *guard, f"+data.poisoned=[{POISONED}]", "+data.on_ranks=[1]"))
    (event,) = events(tmp_path / "guarded")
    assert event["batch"] == POISONED
    first, last = event.get("skipped_batches", (POISONED, POISONED))
    start_ranks(tmp_path / "spared", (*common, f"+data.left_out={list(range(first, last + 1))}"))
    assert kills.unequal(tmp_path / "guarded", tmp_path / "spared") == []
