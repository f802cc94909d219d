"""SFT on two processes with unequally many tokens against one process with all of them."""

import language_ranks

import pytest
import torch
import torch.multiprocessing as mp


@pytest.mark.distributed
def test_two_ranks_equal_one_in_loss_and_gradient(tmp_path):
    mp.start_processes(language_ranks.start, args=(2, tmp_path), nprocs=2, start_method="spawn")
    alone = language_ranks.gradients(1, 0)
    for rank in (0, 1):
        for name, value in torch.load(tmp_path / f"{rank}.pt").items():
            torch.testing.assert_close(value, alone[name], rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")
