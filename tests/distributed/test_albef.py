"""ALBEF's ITC on two processes with half a batch each against one process with the whole batch."""

import albef_ranks

import pytest
import torch
import torch.multiprocessing as mp


@pytest.mark.distributed
def test_two_ranks_equal_one_in_loss_gradient_and_queue(tmp_path):
    mp.start_processes(albef_ranks.start, args=(2, tmp_path), nprocs=2, start_method="spawn")
    alone = albef_ranks.contrast(1, 0)
    assert alone["encoder.image_projection.weight"].abs().max() > 1e-3 and alone["pointer"] == 8
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found.keys() == alone.keys()
        for name, wanted in alone.items():
            torch.testing.assert_close(found[name], wanted, rtol=1e-5, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")
