"""Two processes with half a batch each against one process with the whole batch."""

import clip_ranks

import pytest
import torch
import torch.multiprocessing as mp


@pytest.mark.distributed
def test_two_ranks_equal_one_in_loss_and_gradient(tmp_path):
    mp.start_processes(clip_ranks.start, args=(2, tmp_path), nprocs=2, start_method="spawn")
    alone = clip_ranks.gradients(1, 0)
    for rank in (0, 1):
        for name, wanted in torch.load(tmp_path / f"{rank}.pt").items():
            for key, value in wanted.items():
                message = lambda m, k=f"rank {rank}, {name}, {key}": f"{k}: {m}"  # noqa: E731
                torch.testing.assert_close(value, alone[name][key], rtol=1e-9, atol=1e-11, msg=message)
