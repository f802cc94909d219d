"""What is seen of a training: lines of a pipe at an interval, the one line of a terminal, three lines before the first step."""

import io
import logging
import os
import pty
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from alignlab.callbacks.meters.progress import Progress, progress
from alignlab.callbacks.telling import introduction
from alignlab.callbacks.telling.introduction import Introduction, warning_of
from alignlab.callbacks.telling.pace import Pace, said_rate, said_time
from alignlab.cost.memory import Memory
from alignlab.losses.contrastive import InfoNce
from alignlab.models.clip import Clip
from alignlab.models.text import TextTower
from alignlab.models.vision import vision_transformer
from alignlab.optim.adamw import adamw
from tiny_run import REPOSITORY
from tiny_training import clip_system, pairs

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader


class SlowStep(Callback):
    """The third step takes 1.6 seconds."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if batch_idx == 2:
            time.sleep(1.6)


class Pairs(lightning.LightningDataModule):
    """Five batches of eight pairs."""

    def train_dataloader(self) -> DataLoader:
        return DataLoader([pairs(seed=i) for i in range(5)], batch_size=None)

    def val_dataloader(self) -> DataLoader:
        return DataLoader([pairs(seed=9)], batch_size=None)


def test_a_pipe_gets_lines_at_an_interval_and_three_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    vision = partial(vision_transformer, image_size=16, patch_size=8, width=16, depth=1, heads=2)
    net = partial(Clip, vision, partial(TextTower, context_length=7, width=16, depth=1, heads=2), embed_dim=8)
    system = clip_system(net, InfoNce(), partial(adamw, lr=1e-3))
    states = []
    loud = SimpleNamespace(state=lambda: torch.get_rng_state())

    class Look(Callback):
        """Random numbers as the first step finds them."""

        def on_train_start(self, *_) -> None:
            states.append(loud.state())

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            states.append(loud.state())

    seen = progress(every_seconds=0.5)
    assert isinstance(seen, Progress) and seen.line is None
    trainer = lightning.Trainer(
        max_steps=5, accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False,
        callbacks=[seen, Introduction(), SlowStep(), Look()], default_root_dir=str(tmp_path), val_check_interval=5,
        num_sanity_val_steps=0, use_distributed_sampler=False,
    )  # fmt: skip
    with caplog.at_level(logging.INFO, "alignlab"):
        trainer.fit(system, datamodule=Pairs())
    lines = capsys.readouterr().out.splitlines()
    steps = [line for line in lines if re.match(r"step \d/5  \d+ %", line)]
    running = [line for line in steps if "step 3 for 0:0" in line or line.startswith("step 2/5")]
    assert 2 <= len(running) <= 4  # the main thread is away for 1.6 seconds
    assert re.fullmatch(r"step 5/5  100 %  [\d.]+ (steps/s|s a step)  loss [\d.]+  temperature 0\.07\S*", steps[-1])
    assert any(re.match(r"step 5 validation  val/loss [\d.]+", line) for line in lines)
    told = [m for m in caplog.messages if m.startswith(("model", "data", "device"))]
    total = sum(p.numel() for p in system.net.parameters())
    assert told[0] == f"model   ClipMethod: {total:,} parameters, all trained"
    assert told[1] == "data    Pairs: 5 rows of 16 px, 5 steps an epoch (8 rows a batch); 5 steps are 1 epochs"
    assert (
        re.fullmatch(r"device  cpu, 1 threads, 32-true; about [\d.]+ GB of [\d.]+ expected", told[2]) and len(told) == 3
    )
    assert torch.equal(states[0], states[1])  # counting activations draws nothing


def test_lines_of_the_other_thread_have_numbers_of_late() -> None:
    """Steps of two seconds: that thread always came first, with the numbers of a minute ago."""
    seen, module = progress(every_seconds=30.0), SimpleNamespace(shown=("train/loss",))
    now = time.perf_counter()
    seen._due, seen._looked = now + 20.0, now - 10.0
    trainer = SimpleNamespace(global_step=4, callback_metrics={"train/loss": torch.tensor(1.5)})
    seen.on_train_batch_end(trainer, module, None, None, 3)
    assert "loss 1.5" in seen.text()


def test_a_run_that_will_not_fit_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
    monkeypatch.setattr(introduction, "free_bytes", lambda device: int(3e9))
    assert warning_of(trainer, Memory(0, int(1e9), int(1e9), 0), int(0.9e9)) is None
    said = warning_of(trainer, Memory(0, int(1e9), int(1e9), 0), int(6e9))
    assert "will not fit" in said and "activations 6.0 GB" in said and "3.0 GB are free" in said
    assert "smaller batch_size" in said and "an adapter" in warning_of(trainer, Memory(0, int(1e9), int(4e9), 0), None)


def test_pace_leaves_out_validation_and_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    pace = Pace()
    pace.begin(10, 100)
    assert pace.rate is None and pace.left is None
    for step in range(11, 31):
        now[0] += 60.0 if step == 11 else 0.5
        pace.done(step)
        if step == 20:
            pace.pause()
            now[0] += 10.0
            pace.go_on()
    assert pace.rate == pytest.approx(2.0) and pace.left == pytest.approx(70 * 19.5 / 19)
    assert (said_rate(2.0), said_rate(0.2), said_time(7), said_time(3 * 3600 + 61)) == (
        "2 steps/s",
        "5 s a step",
        "0:07",
        "3:01:01",
    )


TERMINAL = """
import logging, sys, time
logging.basicConfig(stream=sys.stdout, format="log %(message)s")
from alignlab.callbacks.telling.status_line import StatusLine
line = StatusLine()
line.start()
line.show("step 1/9 " + "x" * 200)
print("half a line, ", end="")
line.show("step 2/9")
print("the other half")
logging.warning("told")
from rich.console import Console
from rich.table import Table
table = Table("metric", title="a title")
table.add_row("one")
Console().print(table)
print("an error", file=sys.stderr)
line.show("step 9/9")
line.stop()
print("after")
"""


def screen(written: str, columns: int = 60) -> list[str]:
    """What stands on a terminal that knows line feeds, returns and `clear line`."""
    rows, column = [""], 0
    for piece in re.split(r"(\r|\n|\x1b\[2K|\x1b\[[\d;]*m)", written):
        if piece == "\n":
            rows.append("")
        elif piece == "\r":
            column = 0
        elif piece == "\x1b[2K":
            rows[-1] = ""
        elif piece and not piece.startswith("\x1b"):
            rows[-1] = (rows[-1][:column] + piece)[:columns] if column else piece + rows[-1][len(piece) :]
        column = len(rows[-1]) if piece not in ("\r",) else 0
    return [row.rstrip() for row in rows]


def in_a_terminal(command: list[str], columns: int = 60, **environment: str) -> str:
    """All that a command writes to a pseudo-terminal."""
    master, slave = pty.openpty()
    settings = (
        os.environ | {"COLUMNS": str(columns), "PYTHONPATH": str(REPOSITORY / "src"), "TERM": "xterm"} | environment
    )
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=settings, cwd=REPOSITORY)
    os.close(slave)
    written = io.BytesIO()
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # Linux says so when the other side is closed
            break
        if not part:
            break
        written.write(part)
    assert process.wait(60) == 0
    os.close(master)
    return written.getvalue().decode().replace("\r\n", "\n")


def test_nothing_shares_the_line_of_a_terminal() -> None:
    rows = screen(in_a_terminal([sys.executable, "-c", TERMINAL]))
    assert rows[0] == "half a line, the other half" and rows[1] == "log told"
    assert "a title" in rows[2] and "an error" in rows and rows[-3:] == ["step 9/9", "after", ""]
    assert [row for row in rows if "step" in row] == ["step 9/9"]


@pytest.mark.slow
@pytest.mark.distributed
def test_a_run_as_typed_in_a_terminal_on_two_ranks(tmp_path: Path) -> None:
    words = "model=clip debug=fast data.batch_size=8 data.num_train=64 data.num_val=16 data.num_workers=0 trainer=ddp"
    command = [sys.executable, "train.py", *words.split(), "callbacks=default", f"hydra.run.dir={tmp_path}"]
    written = in_a_terminal(command, columns=100)
    rows = screen(written, 100)
    (line,) = [row for row in rows if re.match(r"step \d+/\d+  ━+", row)]
    assert "100 %" in line and not re.search(r"step \d+/\d+  ━.*(━━━┓|INFO|validation)", "\n".join(rows))
    assert "steps/s" in written or "s a step" in written
