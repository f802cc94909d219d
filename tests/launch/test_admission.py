"""Whether a run may begin: another run's directory, and processes that the trainer isn't for."""

import json
from pathlib import Path

from alignlab.launch import admission, run_lock

import pytest

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2"}
SALLOC = {"SLURM_JOB_ID": "4", "SLURM_NTASKS": "2", "SLURM_NNODES": "1", "SLURM_JOB_NAME": "interactive"}
BATCH = SALLOC | {"SLURM_JOB_NAME": "b.sh", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "ENVIRONMENT": "BATCH"}
SRUN = BATCH | {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2"}
ONE, DDP = {"devices": 1}, {"devices": {"_target_": "alignlab.strategies.machine.num_processes"}}


def fill(directory: Path, *names: str, config: str = "model: {}\n") -> Path:
    directory.mkdir()
    (directory / "config.yaml").write_text(config)
    for name in names:
        (directory / name).mkdir() if "." not in name else (directory / name).write_text("{}")
    return directory


def test_what_holds_a_run(tmp_path: Path) -> None:
    assert admission.holds(tmp_path / "nowhere") is admission.holds(tmp_path) is None
    killed = fill(tmp_path / "killed", "checkpoints", "metrics.csv")
    assert admission.holds(killed) == "a training run (config.yaml, metrics.csv)"
    (killed / "checkpoints" / "last.ckpt").touch()
    (killed / "config.yaml").unlink()
    assert admission.holds(killed) == "a run (checkpoints, metrics.csv)"
    early = fill(tmp_path / "early", config="stages: {}\n")
    assert admission.holds(early) == "a chain run (config.yaml)"
    (early / "result.json").write_text(json.dumps({"status": "failed", "steps": 0}))
    assert admission.holds(early) is None, "nothing would be lost"
    (early / "result.json").write_text(json.dumps({"status": "ok", "steps": 0}))
    assert admission.holds(early) is not None


def test_the_ways_on_are_said(tmp_path: Path) -> None:
    run, asked = fill(tmp_path / "run"), fill(tmp_path / "asked", "predictions.jsonl", config="task: {}\n")
    with pytest.raises(admission.Taken) as caught:
        admission.refuse_if_taken(run, None)
    assert str(caught.value) == (
        f"{run} holds a training run (config.yaml): go on with resume={run}, or choose another directory "
        "(hydra.run.dir=...)"
    )
    with pytest.raises(admission.Taken) as caught:
        admission.refuse_if_taken(run, None, "inference")
    assert str(caught.value) == f"{run} holds a training run (config.yaml): choose another directory (output=...)"
    with pytest.raises(admission.Taken, match=r"go on with resume=.*asked, or choose .* \(output="):
        admission.refuse_if_taken(asked, None, "inference")
    with pytest.raises(admission.Taken, match="holds a training"):
        admission.refuse_if_taken(run, asked)
    admission.refuse_if_taken(run, run)


def test_a_run_that_its_starter_begins_again_may_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fill(tmp_path / "run")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    admission.refuse_if_taken(run, None)


def test_further_ranks_of_srun_go_with_rank_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fill(tmp_path / "run")
    monkeypatch.setattr(admission, "PAUSE", 0.0)
    for name, value in SRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(admission.Taken):
        admission.refuse_further_rank(run, None, "training")
    with run_lock.held(run):
        admission.refuse_further_rank(run, None, "training")
        monkeypatch.setenv("SLURM_STEP_ID", "1")
        with pytest.raises(admission.Taken):
            admission.refuse_further_rank(run, None, "training")


@pytest.mark.parametrize(
    ("env", "trainer", "said"),
    [
        ({}, ONE, None),
        ({}, DDP, None),
        ({}, {"devices": 4}, None),
        (TORCHRUN, DDP, None),
        (TORCHRUN, {"devices": "auto"}, None),  # the built trainer is asked
        (TORCHRUN, {"devices": [0, 1]}, None),
        (TORCHRUN, ONE, "torchrun has started 2 processes, and this trainer is for one: .*; add trainer=ddp"),
        (TORCHRUN, {"devices": "1"}, "torchrun has started 2 processes, and this trainer is for one"),
        (TORCHRUN, {"devices": 4, "num_nodes": {"_target_": "x"}}, "the trainer's devices=4 ask for 4"),
        (TORCHRUN, {"devices": 4}, "the trainer's devices=4 ask for 4; trainer=ddp takes"),
        (SRUN, ONE, "srun has started 2 processes, and this trainer is for one"),
        (SRUN, DDP, None),
        (SRUN | {"SLURM_JOB_NAME": "bash"}, ONE, "srun has started 2 processes"),
        (SRUN | {"SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}, DDP, None),
        (
            SRUN | {"SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_TASKS_PER_NODE": "2,1"},
            DDP,
            "srun has put 2, 1 tasks on its 2 nodes; ranks need as many on each: srun --ntasks-per-node=1 ",
        ),
        (BATCH, ONE, None),  # the job's other task stays idle
        (BATCH, DDP, "Slurm has given this job 2 tasks, and this process is none of them: type `srun python train.py"),
        (SALLOC, DDP, "type `srun python train.py"),
        (SALLOC | {"SLURM_STEP_ID": str(0xFFFFFFFA)}, DDP, "type `srun python train.py"),  # salloc's own step
        (BATCH | {"SLURM_NTASKS": "1"}, DDP, None),
        (BATCH | {"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, DDP, None),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, ONE, "OMPI_COMM_WORLD_SIZE=2 says that this is one of 2 processes"),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, ONE, "WORLD_SIZE=2 says"),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "1"}, {"devices": 2}, None),  # as Lightning starts them
    ],
)
def test_processes_and_trainer(env: dict, trainer: dict, said: str | None) -> None:
    if said is None:
        admission.refuse_ranks(trainer, env)
    else:
        with pytest.raises(ValueError, match=said) as caught:
            admission.refuse_ranks(trainer, env)
        assert "\n" not in str(caught.value)
