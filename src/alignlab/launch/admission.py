"""Whether a run may begin: nothing of another run lies in its directory, and it is for as many processes as there are.

What is refused would otherwise go wrong in silence: two runs in one directory, or the same run once in each process.
"""

import json
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from alignlab.launch import run_lock
from alignlab.launch.environment import Launch, in_slurm_step, launch, slurm_tasks, slurm_tasks_by_node

# What begins again from nothing when a run begins anew.
_WORK = ("checkpoints", "metrics.csv", "predictions.jsonl", "export")
_KINDS = {"stages": "chain", "task": "inference"}  # root key of config.yaml -> kind of run; else a training
LOOKS, PAUSE = 6, 1.0  # of a further rank at the directory, and seconds between them


class Taken(ValueError):
    """The directory holds another run, or can't hold one."""


def holds(directory: Path) -> str | None:
    """What kind of run a directory holds, with what of it: `a training (config.yaml, checkpoints)`; None where there is
    none, or one that has ended before it did anything.
    """
    work = [name for name in _WORK if _is_there(directory / name)]
    config = directory / "config.yaml"
    if not work and (not config.exists() or _came_to_nothing(directory)):
        return None
    return f"{_kind(config)} ({', '.join([*(['config.yaml'] if config.exists() else []), *work])})"


def refuse_if_taken(directory: Path, resume: str | Path | None, kind: str = "training", key: str = "") -> None:
    """Keeps a new run out of another's directory; a run that is resumed, or begun again by its starter, may be there.

    Args:
        kind: of the new run: training, chain or inference.
        key: the setting that chooses another directory.
    Raises:
        Taken: with the ways on.
    """
    if (resume is not None and Path(resume).resolve() == directory.resolve()) or launch().restarts:
        return
    there = holds(directory)
    if there is None:
        return
    key = key or ("output" if kind == "inference" else "hydra.run.dir")
    go_on = f"go on with resume={directory}, or " if there.startswith(_article(kind)) else ""
    raise Taken(f"{directory} holds {there}: {go_on}choose another directory ({key}=...)")


def refuse_unwritable(directory: Path, key: str) -> None:
    """Raises `Taken` where nothing can be written to a directory, which is made if need be."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        where = f" ({error.filename})" if error.filename and not str(error.filename).startswith(str(directory)) else ""
        raise Taken(
            f"{directory} can't be written to: {error.strerror}{where}; choose another directory ({key}=...)"
        ) from None


def refuse_further_rank(directory: Path, resume: str | Path | None, kind: str) -> None:
    """The same for a rank of srun's beside rank zero, which may have begun meanwhile: its lock says so.

    Raises:
        Taken, Busy: rank zero is refused as well.
    """
    for look in range(LOOKS):
        if run_lock.of_this_launch(directory):
            return
        try:
            run_lock.refuse_if_busy(directory)
            refuse_if_taken(directory, resume, kind)
            return
        except ValueError:
            if look == LOOKS - 1:
                raise
            time.sleep(PAUSE)


def refuse_ranks(trainer: Mapping[str, Any], env: Mapping[str, str] | None = None) -> None:
    """Compares the processes that a trainer is for with those that there are.

    Args:
        trainer: its settings; a `devices` that isn't a number or a list is taken to fit.
    Raises:
        ValueError: who has started how many processes, and what to type.
    """
    env = os.environ if env is None else env
    started = launch(env)
    wanted = _processes(trainer, started.num_nodes)
    who = {"torchrun": "torchrun", "slurm": "srun"}.get(started.starter)
    if who is not None:
        _refuse_uneven(env, started)
        asked = wanted is not None and wanted != started.world_size
        if asked and wanted == 1:
            raise ValueError(
                f"{who} has started {started.world_size} processes, and this trainer is for one: each would train the "
                f"whole run; add trainer=ddp, or start without {who}"
            )
        if asked:
            raise ValueError(
                f"{who} has started {started.world_size} processes, and the trainer's devices={trainer.get('devices')} "
                f"ask for {wanted}; trainer=ddp takes what there is"
            )
        return
    others = _others(env)
    if others is not None and wanted == 1:
        name, count = others
        raise ValueError(
            f"{name}={count} says that this is one of {count} processes, and this trainer is for one: each would train "
            "the whole run; start them with torchrun or srun and add trainer=ddp"
        )
    tasks = slurm_tasks(env)
    if tasks > 1 and not in_slurm_step(env) and started.starter == "user" and wanted != 1:
        raise ValueError(
            f"Slurm has given this job {tasks} tasks, and this process is none of them: type `srun python train.py ...`"
            ", which starts one a task (or ask Slurm for --ntasks=1)"
        )


def _refuse_uneven(env: Mapping[str, str], started: Launch) -> None:
    by_node = slurm_tasks_by_node(env) if started.starter == "slurm" else []
    if len(set(by_node)) > 1:
        raise ValueError(
            f"srun has put {', '.join(map(str, by_node))} tasks on its {len(by_node)} nodes; ranks need as many on "
            f"each: srun --ntasks-per-node={started.world_size // len(by_node) or 1} ..."
        )


def _processes(trainer: Mapping[str, Any], nodes_there: int) -> int | None:
    """How many processes a trainer's settings are for, as far as they say; `num_nodes` may follow what there is."""
    devices, nodes = trainer.get("devices", "auto"), trainer.get("num_nodes", 1)
    nodes = nodes if isinstance(nodes, int) else nodes_there
    if isinstance(devices, str):
        devices = [word for word in devices.split(",") if word.strip()] if "," in devices else _whole(devices)
    count = len(devices) if isinstance(devices, list | tuple) else devices
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        return None
    return count * nodes


def _whole(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() else None


def _others(env: Mapping[str, str]) -> tuple[str, int] | None:
    """The variable by which another starter tells of several processes."""
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS", "WORLD_SIZE"):
        value = env.get(name, "")
        if value.isdecimal() and int(value) > 1:
            return name, int(value)
    return None


def _is_there(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()


def _came_to_nothing(directory: Path) -> bool:
    with suppress(OSError, ValueError, AttributeError):
        result = json.loads((directory / "result.json").read_text(encoding="utf-8"))
        return result.get("status") in ("failed", "interrupted") and result.get("steps") == 0
    return False


def _kind(config: Path) -> str:
    with suppress(OSError, ValueError):
        roots = {line.partition(":")[0] for line in config.read_text(encoding="utf-8").split("\n")}
        return _article(next((kind for key, kind in _KINDS.items() if key in roots), "training"))
    return "a run"


def _article(kind: str) -> str:
    return f"an {kind} run" if kind == "inference" else f"a {kind} run"
