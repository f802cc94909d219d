"""Who started a process, and the directory name that all ranks agree on."""

import re
from concurrent.futures import ThreadPoolExecutor

from alignlab.launch.environment import Launch, agreed_name, launch, of_one_process, slurm_tasks_by_node

import pytest
from torch.distributed import TCPStore

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_RESTART_COUNT": "2",
    "RANK": "3",
    "WORLD_SIZE": "4",
    "GROUP_WORLD_SIZE": "2",
}
# What Slurm 22.05 tells a batch script, and what srun adds for a task.
BATCH = {"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_NNODES": "2", "SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "x"}
BATCH |= {"ENVIRONMENT": "BATCH"}
SLURM = BATCH | {"SLURM_PROCID": "5", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2"}


def test_who_started_it() -> None:
    assert launch({}) == Launch("user", 0, 1, 1, 0)
    assert launch(TORCHRUN) == Launch("torchrun", 3, 4, 2, 2)
    assert launch(TORCHRUN).local_world_size == 2
    assert launch(SLURM | {"SLURM_RESTART_COUNT": "1"}) == Launch("slurm", 5, 8, 2, 1)
    assert launch(SLURM | TORCHRUN).starter == "torchrun", "torchrun also runs inside Slurm"
    for name in ("interactive", "bash"):  # in an salloc, or of `srun bash -c`
        assert launch(SLURM | {"SLURM_JOB_NAME": name}) == Launch("slurm", 5, 8, 2, 0)
    shell = {"SLURM_JOB_NAME": "bash", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}
    assert launch(SLURM | shell).starter == "user", "srun --pty bash"
    assert launch(BATCH | {"SLURM_RESTART_COUNT": "1"}) == Launch("user", 0, 1, 1, 1), "none of the job's tasks"
    assert launch({"LOCAL_RANK": "1", "WORLD_SIZE": "2"}) == Launch("lightning", 1, 2, 1, 0)


def test_a_job_of_its_own_is_no_rank() -> None:
    left = of_one_process({**TORCHRUN, **SLURM, "LOCAL_RANK": "1", "MASTER_PORT": "1", "HOME": "/home/x"})
    assert launch(left) == Launch("user", 0, 1, 1, 0)
    assert left["HOME"] == "/home/x"


def test_slurm_names_the_directory_after_the_job() -> None:
    assert agreed_name(SLURM) == agreed_name(SLURM | {"SLURM_PROCID": "0", "SLURM_RESTART_COUNT": "3"}) == "slurm_77"
    assert agreed_name(SLURM | {"SLURM_STEP_ID": "10"}) == "slurm_77_10"
    assert slurm_tasks_by_node({"SLURM_STEP_TASKS_PER_NODE": "2(x3),1"}) == [2, 2, 2, 1]
    assert agreed_name(SLURM | {"SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "4"}) == "slurm_70_4"


def test_runs_of_one_batch_script_have_names_of_their_own() -> None:
    names = [agreed_name(env, ["model=clip", seed]) for seed in ("seed=0", "seed=1") for env in (BATCH, BATCH)]
    assert names[0] == names[1] != names[2] and all(re.fullmatch("slurm_77_[0-9a-f]{8}", name) for name in names)


def test_torchruns_ranks_ask_its_store() -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    env = TORCHRUN | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    store.set("alignlab/run_directory", "earlier")
    assert agreed_name(env | {"RANK": "1"}) == "earlier"
    store.delete_key("alignlab/run_directory")
    with ThreadPoolExecutor(4) as ranks:
        names = set(ranks.map(lambda rank: agreed_name(env | {"RANK": str(rank)}), range(4)))
    assert len(names) == 1 and re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_[0-9a-f]{4}", names.pop())


def test_ranks_that_cannot_agree_are_told_what_to_give() -> None:
    for env in (TORCHRUN, {"NODE_RANK": "1"}):
        with pytest.raises(ValueError, match=r"give hydra\.run\.dir="):
            agreed_name(env)
