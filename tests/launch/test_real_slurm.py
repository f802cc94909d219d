"""Launch paths on a real Slurm: srun in a batch script and in an salloc, no srun, seeds in a loop, a signal and a second
life.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import slurm_cluster
from running import TRAIN, free_port, result_of, trains, until
from tiny_run import TINY

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(slurm_cluster.missing() is not None, reason=slurm_cluster.missing() or ""),
]
WORDS = " ".join((*TINY, "run_name=real"))
PYTHON = f"MASTER_ADDR=127.0.0.1 {sys.executable} {TRAIN} {WORDS}"


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with slurm_cluster.cluster(tmp_path_factory.mktemp("slurm"), [free_port() for _ in range(3)]) as found:
        yield found


def batch(folder: Path, env: dict[str, str], script: str, *options: str, wait: bool = True) -> str:
    """Submits a script; its output, when it has ended."""
    (folder / "job.sh").write_text(f"#!/bin/sh\n{script}\n")
    command = ["sbatch", "-o", "out", *(["-W"] if wait else []), *options, "job.sh"]
    subprocess.run(command, cwd=folder, env=env, capture_output=True, timeout=500)
    return (folder / "out").read_text() if wait else ""


def runs(folder: Path) -> list[Path]:
    return sorted((folder / "outputs" / "real").iterdir())


def test_srun_with_ntasks_on_two_nodes_makes_ranks(tmp_path: Path, env: dict[str, str]) -> None:
    script = (
        f"export MASTER_ADDR=127.0.0.1; srun {PYTHON[len('MASTER_ADDR=127.0.0.1 ') :]} trainer=ddp trainer.max_steps=2"
    )
    out = batch(tmp_path, env, script, "--ntasks=2", "--nodes=2")
    (run_dir,) = runs(tmp_path)
    result = result_of(run_dir)
    assert (result["status"], result["world_size"]) == ("ok", 2), out
    assert run_dir.name.startswith("slurm_")


def test_srun_in_an_salloc_makes_ranks(tmp_path: Path, env: dict[str, str]) -> None:
    command = f"srun bash -c '{PYTHON} trainer=ddp trainer.max_steps=2'"
    done = subprocess.run(["salloc", "-n2", "-N1", "sh", "-c", command], cwd=tmp_path, env=env, timeout=500)
    (run_dir,) = runs(tmp_path)
    assert done.returncode == 0 and result_of(run_dir)["world_size"] == 2


def test_without_srun(tmp_path: Path, env: dict[str, str]) -> None:
    out = batch(tmp_path, env, f"{PYTHON} trainer=ddp", "--ntasks-per-node=2")
    assert out.startswith("error: Slurm has given this job 2 tasks, and this process is none of them: type `srun "), out
    out = batch(tmp_path, env, f"srun {PYTHON.partition(' ')[2]} trainer=cpu", "--ntasks=2")
    assert out.count("error: srun has started 2 processes, and this trainer is for one: ") == 2, out
    loop = f"for seed in 0 1; do {PYTHON} trainer=cpu trainer.max_steps=1 seed=$seed; done"
    out = batch(tmp_path, env, loop, "--ntasks=1")
    assert sorted(result_of(run_dir)["seed"] for run_dir in runs(tmp_path)) == [0, 1], out


def test_a_signal_and_a_second_life(tmp_path: Path, env: dict[str, str]) -> None:
    script = f"srun {PYTHON.partition(' ')[2]} trainer=cpu trainer.max_steps=100000 trainer.val_check_interval=null\n"
    script += '[ $? -eq 138 ] && scontrol requeue "$SLURM_JOB_ID"'
    batch(tmp_path, env, script, "--ntasks=1", "--requeue", "--open-mode=append", wait=False)
    run_dir = until(lambda: next(iter((tmp_path / "outputs" / "real").glob("slurm_*")), None))
    until(lambda: trains(run_dir))
    job = run_dir.name.partition("_")[2]
    subprocess.run(["scancel", "--signal=USR1", f"{job}.0"], env=env, check=True)
    log = run_dir / "train.log"  # Slurm lets a requeued job wait for two minutes
    until(lambda: log.read_text().count("run directory") >= 2, seconds=600)
    until(lambda: not (run_dir / "result.json").exists() and trains(run_dir))
    assert f"resume: {run_dir}\n" in (run_dir / "config.yaml").read_text()
    assert runs(tmp_path) == [run_dir]
    subprocess.run(["scancel", job], env=env, check=True)
