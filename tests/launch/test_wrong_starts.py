"""Ways to start ranks wrongly: each ends soon, in one line, with nothing written; srun, salloc, sbatch and mpirun by the
variables that they set.
"""

import subprocess
import time
from pathlib import Path

from running import TRAIN, end, free_port, start
from tiny_run import REPOSITORY, TINY

import pytest

pytestmark = pytest.mark.slow
SOON = 150.0  # seconds, on a machine with other work: alone it takes ten
JOB = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_NNODES": "1", "SLURM_JOB_NAME": "job"}
BATCH = JOB | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "ENVIRONMENT": "BATCH"}
STEP = JOB | {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2"}
SHELL = JOB | {"SLURM_JOB_NAME": "interactive"}
UNEVEN = STEP | {"SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_TASKS_PER_NODE": "2,1"}
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def tasks(env: dict[str, str]) -> list[dict[str, str]]:
    """The variables of two tasks of a step."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "SLURM_NODEID": "0"}
    return [env | meeting | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank} for rank in "01"]


def codes(processes: list[subprocess.Popen]) -> list[int]:
    deadline = time.monotonic() + SOON
    try:
        return [process.wait(max(0.1, deadline - time.monotonic())) for process in processes]
    finally:
        end(*processes)


@pytest.mark.parametrize(
    ("words", "envs", "said"),
    [
        (("trainer=cpu",), tasks(STEP), "srun has started 2 processes, and this trainer is for one"),
        (("trainer=cpu",), tasks(STEP | {"SLURM_JOB_NAME": "bash"}), "srun has started 2 processes"),
        (
            ("trainer=ddp", "trainer.devices=4"),
            tasks(STEP),
            "srun has started 2 processes, and the trainer's devices=4",
        ),
        (("trainer=ddp",), tasks(UNEVEN), "srun has put 2, 1 tasks on its 2 nodes"),
        (("trainer=ddp",), [BATCH], "Slurm has given this job 2 tasks, and this process is none of them"),
        (("trainer=ddp",), [SHELL], "Slurm has given this job 2 tasks"),
        (("trainer=cpu",), [{"OMPI_COMM_WORLD_SIZE": "2"}] * 2, "OMPI_COMM_WORLD_SIZE=2 says"),
        (("trainer=cpu",), [{"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}], "WORLD_SIZE=2 says"),
        (("-m", "seed=0,1"), tasks(STEP), "-m under torchrun or srun would run the sweep 2 times"),
    ],
)
def test_it_is_refused_in_one_line(tmp_path: Path, words: tuple[str, ...], envs: list[dict], said: str) -> None:
    assert codes([start(TRAIN, *TINY, *words, cwd=tmp_path, env=env) for env in envs]) == [2] * len(envs)
    lines = (tmp_path / "console.log").read_text().splitlines()
    assert len(lines) == len(envs) and all(line.startswith(f"error: {said}") for line in lines)
    assert [path.name for path in tmp_path.iterdir()] == ["console.log"]


def test_torchrun_with_a_trainer_for_one(tmp_path: Path) -> None:
    assert codes([start(*TORCHRUN, TRAIN, *TINY, "trainer=cpu", cwd=tmp_path)]) == [1]
    said = (tmp_path / "console.log").read_text()
    assert "error: torchrun has started 2 processes, and this trainer is for one: " in said
    assert [path.name for path in tmp_path.iterdir()] == ["console.log"]


def test_ranks_into_another_runs_directory_and_infer_as_ranks(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").write_text("x")
    words = (*TINY, "trainer=ddp", f"hydra.run.dir={run}")
    assert codes([start(TRAIN, *words, cwd=tmp_path, env=env) for env in tasks(STEP)]) == [2, 2]
    infer = str(REPOSITORY / "infer.py")
    assert codes([start(infer, "model=x", "prompt_text=x", cwd=tmp_path, env=env) for env in tasks(STEP)]) == [2, 2]
    lines = (tmp_path / "console.log").read_text().splitlines()
    assert [line.split(":")[1][:30] for line in lines[:2]] == [f" {run} holds a run"[:30]] * 2
    assert all("infer.py under torchrun or srun" in line for line in lines[2:])
    assert [str(path.relative_to(run)) for path in run.rglob("*")] == ["checkpoints", "checkpoints/last.ckpt"]


def test_seeds_of_a_batch_script_have_directories_of_their_own(tmp_path: Path) -> None:
    words = (*TINY, "run_name=loop", "trainer=cpu", "trainer.max_steps=1")
    for seed in (0, 1, 1):
        (code,) = codes([start(TRAIN, *words, f"seed={seed}", cwd=tmp_path, env=BATCH | {"SLURM_NTASKS": "1"})])
    assert code == 2, "the same once more is refused"
    assert len(list((tmp_path / "outputs" / "loop").glob("slurm_7_*/checkpoints/last.ckpt"))) == 2
