"""Two ranks started by torchrun, srun and Lightning: one directory, a signal to one rank, a rank that is killed, a sweep."""

import csv
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

from alignlab.launch import run_lock
from running import ENDLESS, MINUTE, PATIENCE, TRAIN, alive, end, free_port, of_rank, result_of, start, trains, until
from tiny_run import TINY

import pytest
import torch

pytestmark = pytest.mark.distributed
DDP = (*ENDLESS, "trainer=ddp")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@contextmanager
def ended(*processes: Popen) -> Iterator[None]:
    try:
        yield
    finally:
        end(*processes)


def checkpoint_step(run_dir: Path) -> int:
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=False)["global_step"]


def steps_of(run_dir: Path) -> list[int]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def slurm_tasks(port: int, restarts: int) -> list[dict[str, str]]:
    """What srun tells two tasks of a node."""
    job = {
        "SLURM_JOB_ID": "4711",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_RESTART_COUNT": str(restarts),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    return [job | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in (0, 1)]


def test_torchrun_makes_one_directory_and_a_signal_to_rank_one_ends_it(tmp_path: Path) -> None:
    group = start(*TORCHRUN, TRAIN, *DDP, "run_name=agreed", cwd=tmp_path)
    with ended(group):
        outputs = tmp_path / "outputs" / "agreed"
        until(lambda: outputs.exists() and any(trains(run_dir) for run_dir in outputs.iterdir()), group)
        (run_dir,) = outputs.iterdir()
        assert not list(run_dir.parent.glob("*/.hydra"))[1:] and (run_dir / "train_rank_1.log").exists()
        os.kill(of_rank(1, "RANK", TRAIN), signal.SIGTERM)
        assert group.wait(MINUTE) != 0  # torchrun has its own code for ranks that didn't end with 0
        result = result_of(run_dir)
        assert (result["status"], result["world_size"]) == ("interrupted", 2)
        assert result["reason"] == f"SIGTERM at step {result['steps']}"
        assert checkpoint_step(run_dir) == result["steps"] and steps_of(run_dir) == list(range(result["steps"]))
        assert not (run_dir / run_lock.FILE).exists()


def test_a_slurm_job_saves_before_its_limit_and_goes_on_when_it_is_requeued(tmp_path: Path) -> None:
    tasks = [start(TRAIN, *DDP, "run_name=job", cwd=tmp_path, env=env) for env in slurm_tasks(free_port(), 0)]
    run_dir = tmp_path / "outputs" / "job" / "slurm_4711"
    with ended(*tasks):
        until(lambda: trains(run_dir), *tasks)
        tasks[1].send_signal(signal.SIGUSR1)
        assert [task.wait(MINUTE) for task in tasks] == [138, 138]
    step = result_of(run_dir)["steps"]
    assert result_of(run_dir)["reason"] == f"SIGUSR1 at step {step}" and checkpoint_step(run_dir) == step
    more = [*DDP, "run_name=job", f"trainer.max_steps={step + 2}"]
    tasks = [start(TRAIN, *more, cwd=tmp_path, env=env) for env in slurm_tasks(free_port(), 1)]
    with ended(*tasks):
        assert [task.wait(PATIENCE) for task in tasks] == [0, 0]
    assert list(run_dir.parent.iterdir()) == [run_dir]
    assert steps_of(run_dir) == list(range(step + 2)) and result_of(run_dir)["status"] == "ok"


def test_a_killed_rank_ends_the_run_with_the_cause(tmp_path: Path) -> None:
    run = start(TRAIN, *DDP, f"hydra.run.dir={tmp_path}/run", cwd=tmp_path)
    with ended(run):
        until(lambda: trains(tmp_path / "run"), run)
        child = of_rank(1, "LOCAL_RANK", f"hydra.run.dir={tmp_path}/run")
        os.kill(child, signal.SIGKILL)
        assert run.wait(MINUTE) == 1
    result = result_of(tmp_path / "run")
    cause = f"rank 1 died (process {child} on {socket.gethostname()}): killed by SIGKILL (out of memory?)"
    assert (result["status"], result["reason"]) == ("failed", f"RankDied: {cause}")
    assert f"error: {cause}" in (tmp_path / "console.log").read_text()


@pytest.mark.slow
def test_a_sweep_of_two_times_two_jobs_of_two_ranks(tmp_path: Path) -> None:
    values = ("data.batch_size=8,0", "optim.lr=1e-3,2e-3", "objective=val/loss", "trainer.max_steps=2")
    sweep_dir = tmp_path / "sweep"
    sweep = start(TRAIN, "-m", *TINY, "trainer=ddp", *values, f"hydra.sweep.dir={sweep_dir}", cwd=tmp_path)
    with ended(sweep):
        for number, rate in ((0, "0.001"), (1, "0.002")):
            child = until(lambda number=number: of_rank(1, "LOCAL_RANK", f"{sweep_dir}/{number}'"), sweep)
            words = [word.lstrip("+") for word in Path(f"/proc/{child}/cmdline").read_text().split("\0")]
            assert "-m" not in words and f"optim.lr={rate}" in words, "the ranks of a job know nothing of the sweep"
        assert sweep.wait(PATIENCE) == 0
    with (sweep_dir / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["ok", "ok", "failed", "failed"]
    assert all("data.batch_size" in row["reason"] for row in rows[2:])
    assert (
        float(rows[0]["objective"]) == result_of(sweep_dir / "0")["metrics"]["val/loss"] != float(rows[1]["objective"])
    )
    assert {result_of(sweep_dir / str(number))["world_size"] for number in (0, 1)} == {2}
    assert sorted(path.name for path in sweep_dir.iterdir() if path.is_dir()) == ["0", "1", "2", "3"]
    assert "2 of 4 ok" in (tmp_path / "console.log").read_text()


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_with_data_workers(tmp_path: Path) -> None:
    run = start(TRAIN, *DDP, "data.num_workers=1", f"hydra.run.dir={tmp_path}/run", cwd=tmp_path)
    with ended(run):
        until(lambda: trains(tmp_path / "run"), run)
        child = of_rank(1, "LOCAL_RANK", f"hydra.run.dir={tmp_path}/run")
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(MINUTE) == 130 and not alive(child)
    result = result_of(tmp_path / "run")
    assert result["status"] == "interrupted" and checkpoint_step(tmp_path / "run") == result["steps"]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_of_torchrun_is_killed(tmp_path: Path, rank: int) -> None:
    group = start(*TORCHRUN, TRAIN, *DDP, f"hydra.run.dir={tmp_path}/run", cwd=tmp_path)
    with ended(group):
        until(lambda: trains(tmp_path / "run"), group)
        os.kill(of_rank(rank, "RANK", TRAIN), signal.SIGKILL)
        assert group.wait(MINUTE) == 1
    assert result_of(tmp_path / "run")["reason"].startswith(f"RankDied: rank {rank} died")


@pytest.mark.slow
def test_torchrun_starts_again_and_the_run_goes_on(tmp_path: Path) -> None:
    torchrun = (*TORCHRUN, "--max-restarts", "1")
    group = start(*torchrun, TRAIN, *DDP, "run_name=again", "trainer.val_check_interval=2", cwd=tmp_path)
    with ended(group):
        outputs = tmp_path / "outputs" / "again"
        until(lambda: list(outputs.glob("*/checkpoints/last.ckpt")), group)
        (run_dir,) = outputs.iterdir()
        first = of_rank(1, "RANK", TRAIN)
        os.kill(first, signal.SIGKILL)
        until(lambda: (second := of_rank(1, "RANK", TRAIN)) and second != first, group)
        until(lambda: not (run_dir / "result.json").exists() and trains(run_dir), group)
        before = len(steps_of(run_dir))
        until(lambda: len(steps_of(run_dir)) > before + 3, group)
        os.kill(of_rank(0, "RANK", TRAIN), signal.SIGTERM)
        group.wait(MINUTE)
    assert list(outputs.iterdir()) == [run_dir]
    assert steps_of(run_dir) == list(range(result_of(run_dir)["steps"]))


def test_a_directory_in_use_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    with run_lock.held(tmp_path):
        for how in (f"hydra.run.dir={tmp_path}", f"resume={tmp_path}"):
            refused = start(TRAIN, *TINY, how, cwd=tmp_path)
            assert refused.wait(PATIENCE) == 2
    said = (tmp_path / "console.log").read_text().splitlines()
    assert (
        said
        == [
            f"error: {tmp_path} is in use by process {os.getpid()}; stop that run or choose another directory (hydra.run.dir=...)"
        ]
        * 2
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "console.log"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("optim.lr=1e-3,many",), "error: optim.lr: expects float, got 'many' (optim.lr=many)"),
        (("optim.lrr=1,2",), "error: optim.lrr: unknown key; did you mean lr?"),
        (
            ("seed=1,2", "hydra.launcher.n_jobs=0"),
            "error: hydra.launcher.n_jobs=0 must be a whole number of at least 1",
        ),
    ],
)
def test_a_bad_sweep_begins_no_job(tmp_path: Path, words: tuple[str, ...], expected: str) -> None:
    sweep = start(TRAIN, "-m", *TINY, *words, f"hydra.sweep.dir={tmp_path}/sweep", cwd=tmp_path)
    assert sweep.wait(PATIENCE) == 2
    assert (tmp_path / "console.log").read_text().startswith(expected)
    assert not (tmp_path / "sweep" / "0").exists()


def test_a_sweep_is_no_matter_for_ranks(tmp_path: Path) -> None:
    env = slurm_tasks(1, 0)[1]
    sweep = start(TRAIN, "-m", *TINY, "seed=1,2", cwd=tmp_path, env=env)
    assert sweep.wait(PATIENCE) == 2
    assert (
        (tmp_path / "console.log")
        .read_text()
        .startswith("error: -m under torchrun or srun would run the sweep 2 times")
    )


@pytest.mark.slow
def test_a_slurm_sweep_with_ranks_as_tasks(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    launcher = ("hydra/launcher=slurm", "hydra.launcher.cluster=local", "hydra.launcher.tasks_per_node=2")
    words = (*TINY, "trainer=ddp", "trainer.max_steps=2", "objective=val/loss", "seed=5", "hydra.launcher.poll_s=0.2")
    sweep = start(TRAIN, "-m", *launcher, *words, f"hydra.sweep.dir={tmp_path}/sweep", cwd=tmp_path)
    with ended(sweep):
        assert sweep.wait(PATIENCE) == 0, (tmp_path / "console.log").read_text()
    result = result_of(tmp_path / "sweep" / "0")
    assert (result["status"], result["world_size"], result["seed"]) == ("ok", 2, 5)
    assert "1 of 1 ok" in (tmp_path / "console.log").read_text()
