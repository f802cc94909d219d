"""What each of two processes does in `test_accumulation.py`: SFT and ALBEF with accumulated batches under DDP, FSDP2 and ZeRO."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "systems"))
from alignlab.strategies.deepspeed import DeepSpeed
from alignlab.strategies.fsdp import Fsdp
from alignlab.strategies.replica import gathered

import test_accumulation as systems
import torch
from lightning.pytorch.strategies import DDPStrategy

STRATEGIES = {
    "ddp": lambda: DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True),
    "fsdp": Fsdp,
    "deepspeed": lambda: DeepSpeed(stage=2),
}
# name -> rows of a batch of one of two ranks, accumulated batches, batches of an epoch: one step, two steps, one incomplete step
CASES = {"sft": (1, 2, 4), "reward": (1, 2, 4), "albef": (2, 2, 2), "sft, incomplete": (1, 4, 2)}


def system_of(case: str) -> tuple:
    return systems.SYSTEMS[case.partition(",")[0]]


def alone(case: str) -> tuple:
    """The same rows in one process and one batch a step."""
    size, accumulate, batches = CASES[case]
    steps = max(1, batches // accumulate)
    return systems.trained(*system_of(case), 2 * size * batches // steps, 1, steps)


def start(rank: int, ranks: int, port: int, folder: Path, names: tuple[str, ...]) -> None:
    """Entry point of one process, which Lightning takes for one of torchrun's."""
    torch.set_num_threads(1)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "GROUP_RANK": 0}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    os.environ.update({name: str(value) for name, value in {**place, **address}.items()})
    for name in names:
        for case, settings in CASES.items():
            if name == "deepspeed" and "incomplete" in case:
                continue  # there an epoch ends with its last complete step
            _, logged, system = systems.trained(*system_of(case), *settings, devices=ranks, strategy=STRATEGIES[name]())
            weights = {key: gathered(p).detach().clone() for key, p in system.net.named_parameters()}
            torch.save((weights, logged), folder / f"{name} {case} {rank}.pt")
