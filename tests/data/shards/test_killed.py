"""Runs on shards, two ranks with two workers each, killed twice amid an epoch: their ends are those of undisturbed ones."""

import json
import time
from pathlib import Path

import task_lists
from alignlab import cli
from kills import Launched, rows, unequal
from tiny_run import TINY_TOWERS

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.distributed]
RUN = (
    *("trainer=ddp", "data.batch_size=4", "data.num_workers=2", "data.image_size=16", "data.context_length=16"),
    *("trainer.max_steps=24", "trainer.val_check_interval=8", "trainer.log_every_n_steps=1", "callbacks=default"),
    *("callbacks.curves=null", "callbacks.checkpoint.every_n_steps=3"),
)
ALBEF = (
    *(f"model.net.encoder.{key}" for key in ("vision.width=32", "vision.depth=1", "text_width=32", "text_layers=1")),
    "model.net.encoder.fusion_layers=1",
)


def captions(folder: Path) -> None:
    lines = []
    for n in range(60):
        task_lists.picture(folder / f"{n}.png", n)
        lines.append(json.dumps({"image": f"{n}.png", "captions": [f"the scene {n}", f"scene number {n}"]}))
    (folder / "captions.jsonl").write_text("\n".join(lines))
    assert cli.main(["shards", "pack", str(folder / "captions.jsonl"), str(folder / "shards")]) == 0


def questions(folder: Path) -> None:
    file = task_lists.vqa(folder, "train2014", 80)
    assert cli.main(["shards", "pack", str(file), str(folder / "shards"), "--kind", "questions"]) == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (captions, ("model=clip", "data=shards", *TINY_TOWERS)),
        (questions, ("model=albef_vqa", "data=questions", "data.max_answers=4", *ALBEF)),
    ],
    ids=["captions", "questions"],
)
def test_killed_twice(tmp_path: Path, make, words: tuple[str, ...]) -> None:
    make(tmp_path)
    command = [*words, *RUN, f"data.annotations={tmp_path / 'shards'}", "data.val_share=0.2"]
    whole, killed, log = tmp_path / "whole" / "run", tmp_path / "killed" / "run", tmp_path / "log"
    undisturbed = Launched(command, whole, log)
    assert undisturbed.process.wait(600) == 0, log.read_text()[-3000:]
    for leg, steps in enumerate((5, 14)):
        process = Launched([f"resume={killed}"] if leg else command, killed, log)
        deadline = time.monotonic() + 300
        while not (killed / "metrics.csv").exists() or len(rows(killed)) < steps:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.01)
        process.kill()
    assert Launched([f"resume={killed}"], killed, log).process.wait(600) == 0, log.read_text()[-3000:]
    assert rows(killed) == rows(whole) and unequal(killed, whole) == []
