"""What it costs two processes to agree at every step whether one has received a signal: the question of `Interruption` against Lightning's.

python benchmarks/agreement.py
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

ROUNDS, STEPS = 7, 500
STEP = 0.002  # seconds of work between two questions, equal on both ranks


def lightnings() -> None:
    """What lightning 2.6 does before each batch: a broadcast from rank zero, waited for."""
    flag = torch.tensor([0])
    dist.broadcast(flag, src=0)
    flag.item()


def measure(rank: int, folder: str) -> None:
    """Microseconds a step of each way, alternating, on rank zero."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    from alignlab.callbacks.keeping.interruption import Interruption
    from alignlab.launch.signals import Inbox

    ours = Interruption(Inbox())
    ours.setup(SimpleNamespace(world_size=2), None, "fit")
    ways = {"no question": lambda: None, "Interruption": ours._answer, "Lightning": lightnings}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, ask in ways.items():
            dist.barrier()
            begin = time.perf_counter()
            for _ in range(STEPS):
                until = time.perf_counter() + STEP
                while time.perf_counter() < until:
                    pass
                ask()
            taken[name].append((time.perf_counter() - begin) / STEPS * 1e6)
    if rank == 0:
        none = statistics.median(taken["no question"])
        for name in ("Interruption", "Lightning"):
            print(
                f"{name}: {statistics.median(taken[name]) - none:.0f} microseconds a step (median of {ROUNDS} rounds)"
            )
    dist.destroy_process_group()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(measure, (folder,), nprocs=2)
