"""Two processes in micro-batches, under DDP or FSDP2, compiled and checkpointed or not, train as one process with the whole batch."""

import socket

import micro_batch_ranks

import pytest
import torch
import torch.multiprocessing as mp


@pytest.mark.distributed
def test_two_ranks_in_micro_batches_train_as_one_without(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(micro_batch_ranks.start, args=(2, port, tmp_path), nprocs=2, start_method="spawn")
    for kind in micro_batch_ranks.SETTINGS:
        alone = micro_batch_ranks.trained(kind, 1, 0)
        tolerance = {"rtol": 1e-8, "atol": 1e-10} if "fsdp" not in kind else {"rtol": 1e-4, "atol": 1e-5}
        for rank in (0, 1):
            torch.testing.assert_close(torch.load(tmp_path / f"{kind}{rank}.pt"), alone, **tolerance)
