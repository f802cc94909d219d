"""Two processes with half the prompts each against one process with all of them."""

import os
import subprocess
import sys
from pathlib import Path

import ppo_ranks
from tiny_run import REPOSITORY

import pytest
import torch
from torch.testing import assert_close


@pytest.mark.distributed
def test_two_ranks_equal_one_in_weights_metrics_and_state(tmp_path: Path) -> None:
    ppo_ranks.save_model(tmp_path / "model")
    paths = [str(REPOSITORY / "tests" / "support"), str(REPOSITORY / "src"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PPO_FOLDER": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, ppo_ranks.__file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    alone = ppo_ranks.train(tmp_path, 1)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt")
        for name, value in alone["weights"].items():
            assert_close(found["weights"][name], value, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
        for row, wanted in zip(found["metrics"], alone["metrics"], strict=True):
            assert row.keys() == wanted.keys()
            for name in row:
                assert row[name] == pytest.approx(wanted[name], rel=1e-3, abs=1e-5), name
        assert found["state"] == pytest.approx(alone["state"], rel=1e-4)
