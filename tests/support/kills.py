"""Kills an ALBEF run again and again with SIGKILL, resumes it each time and compares its end with the undisturbed run, bit for bit.

    python tests/support/kills.py --kills 20 --num-workers 1 +trainer.accumulate_grad_batches=2
    python tests/support/kills.py --kills 20 --ddp

Kills fall at random moments of a leg; every other one waits for a half-written file in checkpoints/ and kills then. One process is forked from here,
which saves the imports; with --ddp the whole process group of `python train.py trainer=ddp` is killed.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import yaml
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
WALL_CLOCK = {"train/samples_per_second"}  # the columns of metrics.csv that no two runs share
# Weights, teacher, queue; moments; schedule; random states of every rank.
STATE = ("state_dict", "optimizer_states", "lr_schedulers", "random", "global_step")
# Tiny, but with all that has a state: a teacher behind its student, a queue longer than the batch and no multiple of it, epochs of 8 batches,
# validations off the checkpoints' interval, random masks.
TINY = (
    *("model=albef", "callbacks=default", "data.batch_size=8", "data.num_train=64", "data.num_val=16"),
    *("data.image_size=16", "data.context_length=16", "model.queue_size=20", "model.momentum=0.9", "model.alpha=0.4"),
    *(
        "model.alpha_ramp_steps=10",
        "model.teach_from_step=2",
        "model.fuse_from_step=3",
        "model.net.encoder.vision.width=32",
    ),
    *("model.net.encoder.vision.depth=1", "model.net.encoder.text_width=32", "model.net.encoder.text_layers=1"),
    *("model.net.encoder.fusion_layers=1", "model.net.encoder.embed_dim=16", "model.net.encoder.dropout=0.1"),
    *("trainer.val_check_interval=7", "trainer.log_every_n_steps=1", "callbacks.curves=null"),
    *("callbacks.checkpoint.every_n_steps=3",),
)


@dataclass
class Report:
    """What happened."""

    kills: int = 0
    amid_checkpoints: int = 0  # kills that left a half-written file
    before_first: int = 0  # kills before there was a checkpoint
    runs: int = 0
    files_checked: int = 0
    seconds: float = 0.0
    steps_lost: list[int] = field(default_factory=list)


def train_here(overrides: list[str], run_dir: Path) -> None:
    """A run in this process, as `train.py` does it."""
    from alignlab.configs.command_line import arguments
    from alignlab.runs import resuming
    from alignlab.runs import train as run

    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict

    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        cfg = compose("train", overrides=arguments(overrides), return_hydra_config=True)
    with open_dict(cfg):
        cfg.hydra.runtime.output_dir = str(run_dir)
        HydraConfig.instance().cfg = cfg.copy()
        del cfg["hydra"]
    run_dir.mkdir(parents=True, exist_ok=True)
    run.train(resuming.resumed(cfg, overrides))


class Forked:
    """A run in a forked process; its loader's workers die with it."""

    def __init__(self, overrides: list[str], run_dir: Path, log: Path) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1), os.dup2(output, 2)
            code = 1
            try:
                train_here(overrides, run_dir)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush(), sys.stderr.flush()
                os._exit(code)
        self.code: int | None = None

    def poll(self) -> int | None:
        if self.code is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if done else None
        return self.code

    def kill(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:  # not the leader of a group yet
            os.kill(self.pid, signal.SIGKILL)
        if self.code is None:
            os.waitpid(self.pid, 0)


class Launched:
    """`python train.py` in a process group of its own."""

    def __init__(self, overrides: list[str], run_dir: Path, log: Path) -> None:
        command = [sys.executable, "train.py", *overrides, f"hydra.run.dir={run_dir}"]
        with log.open("a") as output:
            self.process = subprocess.Popen(
                command, cwd=REPOSITORY, stdout=output, stderr=output, start_new_session=True
            )

    def poll(self) -> int | None:
        return self.process.poll()

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def check_files(run_dir: Path) -> int:
    """Reads every file that has its final name, and returns how many there are; raises where one can't be read."""
    from alignlab.callbacks.keeping.checkpoint_folder import damage, read_index
    from alignlab.callbacks.meters.metrics_csv import MetricsCsv

    sizes = {entry.file: entry.bytes for entry in read_index(run_dir / "checkpoints")}
    files = [file for file in run_dir.rglob("*") if file.is_file() and not file.name.startswith(".")]
    for file in files:
        if file.suffix == ".ckpt":
            complaint = damage(file, sizes.get(file.name))
            assert complaint is None, f"{file}: {complaint}"
        elif file.suffix == ".json":
            json.loads(file.read_text())
        elif file.suffix == ".yaml" and file.parent.name != ".hydra":
            assert yaml.safe_load(file.read_text())
        elif file.suffix == ".png":
            Image.open(file).load()
    with tempfile.TemporaryDirectory() as copy:  # reading it would drop the half line that a kill may leave
        if (run_dir / "metrics.csv").exists():
            shutil.copy(run_dir / "metrics.csv", copy)
            assert [row["step"] for row in MetricsCsv(copy).rows] == list(range(len(MetricsCsv(copy).rows)))
    return len(files)


def rows(run_dir: Path) -> list[dict[str, str]]:
    """metrics.csv as text, without the columns of wall-clock time."""
    with (run_dir / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in WALL_CLOCK} for row in csv.DictReader(file)]


def differences(run_dir: Path, undisturbed: Path) -> list[str]:
    """What differs between two runs in metrics.csv and in the last checkpoint."""
    found = [] if rows(run_dir) == rows(undisturbed) else ["metrics.csv"]
    return found + unequal(run_dir, undisturbed, (*STATE, "loops"))


def unequal(first: Path, second: Path, parts: tuple[str, ...] = STATE) -> list[str]:
    """Where the last checkpoints of two runs differ, bit for bit."""
    import torch
    from torch.utils._pytree import tree_flatten_with_path

    states = []
    for folder in (first, second):
        saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        states.append(dict(tree_flatten_with_path({part: saved[part] for part in parts})[0]))
    if states[0].keys() != states[1].keys():
        return ["contents of last.ckpt"]
    found = []
    for path, value in states[0].items():
        other = states[1][path]
        same = torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
        found += [] if same else ["/".join(map(str, path))]
    return found


def leg(start: Callable, run_dir: Path, chance: random.Random, report: Report, longest: float, amid: bool) -> bool:
    """Starts or resumes the run and kills it; True if it was done before."""
    process, checkpoints, metrics = start(run_dir), run_dir / "checkpoints", run_dir / "metrics.csv"
    before = metrics.stat().st_mtime_ns if metrics.exists() else 0
    early = chance.random() < 0.15  # while it imports, builds, restores
    while not early and process.poll() is None and (not metrics.exists() or metrics.stat().st_mtime_ns == before):
        time.sleep(0.002)  # until the leg has begun its first steps
    deadline = time.monotonic() + chance.uniform(0.0, 0.9) * longest
    while process.poll() is None:
        if amid and any(checkpoints.glob(".*.tmp")):
            if chance.random() < 0.5:
                break
            while any(checkpoints.glob(".*.tmp")) and process.poll() is None:  # this one may pass
                pass
        if time.monotonic() > deadline + (longest if amid else 0.0):
            break
        time.sleep(0.0005 if amid else 0.01)
    if process.poll() is not None:
        assert process.poll() == 0, f"the run failed: {(run_dir.parent / 'log').read_text()[-3000:]}"
        return True
    process.kill()
    report.kills += 1
    report.amid_checkpoints += any(checkpoints.glob(".*.tmp"))
    report.before_first += not any(checkpoints.glob("step-*.ckpt"))
    report.files_checked += check_files(run_dir)
    return False


def kill_and_compare(overrides: list[str], kills: int, folder: Path, seed: int = 0, ddp: bool = False) -> Report:
    """Kills runs `kills` times in all and compares each with the undisturbed one; raises AssertionError where they differ."""
    report, chance, begin = Report(), random.Random(seed), time.monotonic()
    kind = Launched if ddp else Forked

    def start(run_dir: Path) -> Forked | Launched:
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        goes_on = (run_dir / "config.yaml").exists()
        command = [f"resume={run_dir}"] if goes_on else [*TINY, *overrides]
        return kind(command, run_dir, run_dir.parent / "log")

    undisturbed, clock = start(folder / "undisturbed" / "run"), None
    while undisturbed.poll() is None:
        if clock is None and (folder / "undisturbed" / "run" / "metrics.csv").exists():
            clock = time.monotonic()
        time.sleep(0.005)
    assert undisturbed.poll() == 0, (folder / "undisturbed" / "log").read_text()[-3000:]
    longest = time.monotonic() - (clock or begin)  # of the steps, without the start
    while report.kills < kills:
        run_dir, done = folder / f"killed_{report.runs}" / "run", False
        while report.kills < kills and not done:
            done = leg(start, run_dir, chance, report, longest, amid=report.kills % 2 == 1)
        if not done:
            last = start(run_dir)
            while last.poll() is None:
                time.sleep(0.02)
            assert last.poll() == 0, (run_dir.parent / "log").read_text()[-3000:]
        report.runs += 1
        report.files_checked += check_files(run_dir)
        different = differences(run_dir, folder / "undisturbed" / "run")
        assert not different, f"{run_dir} differs from the undisturbed run in {different[:10]}"
    report.seconds = time.monotonic() - begin
    return report


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ddp", action="store_true")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    overrides = [f"data.num_workers={options.num_workers}", f"trainer.max_steps={options.steps}"]
    overrides += ["trainer=ddp"] if options.ddp else ["trainer=cpu"]
    if not options.ddp:
        from alignlab.runs import train as run  # noqa: F401  # imported once, before the forks
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        report = kill_and_compare(overrides + options.overrides, options.kills, folder, options.seed, options.ddp)
    print(
        f"{report.kills} kills in {report.runs} runs of {options.steps} steps, {report.amid_checkpoints} amid writing a checkpoint,"
        f" {report.before_first} before the first one: all resumed, all ends equal bit for bit;"
        f" {report.files_checked} files checked after kills, none half; {report.seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
