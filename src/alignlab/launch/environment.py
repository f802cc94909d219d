"""Who started this process, which rank it is, and the one name that all ranks of a launch give their run directory."""

import hashlib
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Starter = Literal["user", "lightning", "torchrun", "slurm"]

# What tells a process that it is one of several. A job that is started on its own must not inherit it.
_OF_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
_OF_RANKS += ("GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED")
_OF_SLURM_TASKS = ("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NTASKS_PER_NODE", "SLURM_PROCID", "SLURM_LOCALID")
_OF_SLURM_TASKS += ("SLURM_STEP_ID", "SLURM_STEPID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES")
_OF_SLURM_TASKS += ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE")
# Steps of Slurm's own (batch script, salloc's shell) have numbers from here on.
_SPECIAL_STEPS = 0xFFFFFFF0
# Names that Slurm gives a job whose one task is somebody's shell.
_SHELLS = ("interactive", "bash", "sh", "zsh", "fish", "tmux")


@dataclass(frozen=True)
class Launch:
    """One process among those that were started together."""

    starter: Starter
    rank: int
    world_size: int
    num_nodes: int
    restarts: int  # how often the starter has begun anew: a requeued Slurm job, a torchrun group after a failure

    @property
    def external(self) -> bool:
        """Whether the processes are there before the run begins, so that each composes the config by itself."""
        return self.starter in ("torchrun", "slurm")

    @property
    def local_world_size(self) -> int:
        return max(1, self.world_size // self.num_nodes)


def launch(env: Mapping[str, str] | None = None) -> Launch:
    """The launch that the environment variables tell of: torchrun, also inside Slurm; a task of srun's; a rank that
    Lightning, or somebody by hand, has started.

    What srun has started is told by its step, not by the job's name as in Lightning: tasks of an `salloc` are ranks
    too. A batch script and the one task that is somebody's shell are no ranks.
    """
    env = os.environ if env is None else env
    if "TORCHELASTIC_RUN_ID" in env:
        nodes, restarts = _number(env, "GROUP_WORLD_SIZE", 1), _number(env, "TORCHELASTIC_RESTART_COUNT")
        return Launch("torchrun", _number(env, "RANK"), _number(env, "WORLD_SIZE", 1), nodes, restarts)
    restarts, tasks = _number(env, "SLURM_RESTART_COUNT"), slurm_tasks(env)
    if in_slurm_step(env) and (tasks > 1 or env.get("SLURM_JOB_NAME") not in _SHELLS):
        nodes = _number(env, "SLURM_STEP_NUM_NODES") or _number(env, "SLURM_NNODES", 1)
        return Launch("slurm", _number(env, "SLURM_PROCID"), tasks, nodes, restarts)
    if "LOCAL_RANK" in env:
        ranks, node, local = _number(env, "WORLD_SIZE", 1), _number(env, "NODE_RANK"), _number(env, "LOCAL_RANK")
        return Launch("lightning", local or node, ranks, 1, restarts)
    return Launch("user", 0, 1, 1, restarts)


def in_slurm_step(env: Mapping[str, str] | None = None) -> bool:
    """Whether srun has started this process, or one that has started it."""
    step = (os.environ if env is None else env).get("SLURM_STEP_ID", "")
    return step.isdecimal() and int(step) < _SPECIAL_STEPS


def slurm_tasks(env: Mapping[str, str] | None = None) -> int:
    """How many tasks Slurm counts: of the step, or of the job where srun hasn't been used; 1 outside Slurm."""
    env = os.environ if env is None else env
    return (in_slurm_step(env) and _number(env, "SLURM_STEP_NUM_TASKS")) or _number(env, "SLURM_NTASKS", 1)


def slurm_tasks_by_node(env: Mapping[str, str] | None = None) -> list[int]:
    """How many tasks of the step each node has; empty where Slurm doesn't say: `2(x3),1` is [2, 2, 2, 1]."""
    words = (os.environ if env is None else env).get("SLURM_STEP_TASKS_PER_NODE", "")
    parts = re.findall(r"(\d+)(?:\(x(\d+)\))?", words)
    return [int(count) for count, times in parts for _ in range(int(times or 1))]


def agreed_name(env: Mapping[str, str] | None = None, words: Sequence[str] = ()) -> str:
    """A name for the run directory that is the same on all ranks, and again after a restart, and no other run's: a
    time stamp, or the Slurm job's number.

    Ranks of torchrun ask the store that its agents keep; those of srun need nothing but their job's number. What a
    batch script starts without srun is told apart by its command line.

    Args:
        words: the command line's.
    Raises:
        ValueError: nothing tells the ranks apart from other runs.
    """
    env = os.environ if env is None else env
    ranks = launch(env)
    if ranks.starter == "slurm" or (ranks.starter == "user" and in_batch_script(env)):
        job, step = env.get("SLURM_ARRAY_JOB_ID", env.get("SLURM_JOB_ID", "0")), env.get("SLURM_STEP_ID", "0")
        own = step if step != "0" else ""
        if ranks.starter == "user":
            own = hashlib.sha256("\n".join(words).encode()).hexdigest()[:8]
        parts = ["slurm", job, env.get("SLURM_ARRAY_TASK_ID", ""), own]
        return "_".join(part for part in parts if part)
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    if ranks.starter == "torchrun":
        return _first_said(env, f"{stamp}_{secrets.token_hex(2)}") if ranks.world_size > 1 else stamp
    if _number(env, "NODE_RANK") > 0:
        raise ValueError(
            "NODE_RANK is set: nodes started by hand can't agree on a run directory; give hydra.run.dir=..."
        )
    return stamp


def of_one_process(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without what makes a process a rank: for jobs that start their own ranks."""
    env = os.environ if env is None else env
    drop = {*_OF_RANKS, *_OF_SLURM_TASKS}
    return {name: value for name, value in env.items() if name not in drop and not name.startswith("TORCHELASTIC_")}


def _first_said(env: Mapping[str, str], value: str) -> str:
    """What the first rank to come said, in the store of torchrun's agent."""
    if env.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        raise ValueError(
            "this torchrun keeps no store for its ranks to agree on a run directory; give hydra.run.dir=..."
        )
    from torch.distributed import TCPStore  # only here: nobody else needs torch to compose a config

    store = TCPStore(env["MASTER_ADDR"], int(env["MASTER_PORT"]), is_master=False)
    return store.compare_set("alignlab/run_directory", "", value).decode()


def in_batch_script(env: Mapping[str, str] | None = None) -> bool:
    """Whether this process is of a Slurm batch script, without srun."""
    env = os.environ if env is None else env
    return env.get("ENVIRONMENT") == "BATCH" and "SLURM_JOB_ID" in env and not in_slurm_step(env)


def _number(env: Mapping[str, str], name: str, default: int = 0) -> int:
    value = env.get(name, "")
    return int(value) if value.isdecimal() else default
