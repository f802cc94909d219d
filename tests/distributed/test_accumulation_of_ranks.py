"""Two processes with accumulated batches, under DDP, FSDP2 or ZeRO, train as one process with all rows of a step in one batch."""

import socket
from pathlib import Path

import accumulation_ranks

import pytest
import torch
import torch.multiprocessing as mp


def check(folder: Path, *names: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(accumulation_ranks.start, args=(2, port, folder, names), nprocs=2, start_method="spawn")
    for case in accumulation_ranks.CASES:
        _, logged, system = accumulation_ranks.alone(case)
        wanted = {key: p.detach() for key, p in system.net.named_parameters()}
        for name in names:
            if name == "deepspeed" and "incomplete" in case:
                continue
            found = [torch.load(folder / f"{name} {case} {rank}.pt") for rank in (0, 1)]
            part = ("fusion", "matching_head", "language_head") if case == "albef" else ("",)
            compared = [key for key in wanted if any(p in key for p in part)]
            assert compared
            for weights, _ in found:
                for key in compared:
                    torch.testing.assert_close(
                        weights[key], wanted[key], rtol=1e-4, atol=1e-5, msg=f"{name} {case} {key}"
                    )
            key = "train/mlm_loss" if case == "albef" else "train/loss"
            ours = [(one[key] + other[key]) / 2 for one, other in zip(*(logs for _, logs in found), strict=True)]
            assert ours == pytest.approx([row[key] for row in logged], rel=1e-4), f"{name} {case}"


@pytest.mark.distributed
def test_two_ranks_accumulate_as_one_takes_it_all(tmp_path):
    check(tmp_path, "ddp", "fsdp")


@pytest.mark.distributed
@pytest.mark.deepspeed
def test_two_ranks_under_zero_too(tmp_path):
    pytest.importorskip("deepspeed")
    check(tmp_path, "deepspeed")
