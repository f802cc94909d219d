"""Training doesn't notice validation."""

from collections.abc import Callable
from pathlib import Path

import kills
from alignlab.runs import train as run

from omegaconf import DictConfig


def test_validation_draws_nothing_from_training(prepared: Callable[..., DictConfig], tmp_path: Path) -> None:
    common = (*kills.TINY, "data.num_workers=0", "trainer.max_steps=8")
    run.train(prepared(tmp_path / "often", *common, "trainer.val_check_interval=2"))
    run.train(prepared(tmp_path / "never", *common, "+trainer.limit_val_batches=0"))
    assert kills.unequal(tmp_path / "often", tmp_path / "never") == []
