"""Every default is written out, keys that no file lists can be set, a config of an earlier layout is recognised."""

from collections.abc import Callable
from pathlib import Path

from alignlab.configs.check import ConfigError, check
from alignlab.configs.command_line import arguments, without_force
from alignlab.configs.filling import filled
from alignlab.configs.roots import LAYOUT
from alignlab.runs.errors import cause
from alignlab.runs.resuming import changes, resumed

import pytest
from omegaconf import DictConfig, OmegaConf

Compose = Callable[..., DictConfig]


def test_every_value_is_there_and_only_once_filled(composed: Compose) -> None:
    cfg = filled(composed("model=clip", "data=emoji_scenes"))
    check(cfg)
    assert cfg.layout == LAYOUT and cfg.trainer.accumulate_grad_batches == 1 and cfg.trainer.max_time is None
    assert "callbacks" not in cfg.trainer and "vocabulary" not in cfg.model, "the run's own"
    assert cfg.optim.decay_fraction == 0.2 and cfg.model.net.vision.patch_size == 8
    assert filled(cfg) == cfg


def test_a_key_that_no_file_lists_needs_no_plus_and_its_default_is_no_change(composed: Compose) -> None:
    words = ["model=clip", "optim.decay_fraction=0.2", "trainer.accumulate_grad_batches=2", "seed=1"]
    assert without_force(arguments(words)) == words
    cfg = composed(*words)
    check(filled(cfg))
    assert cfg.trainer.accumulate_grad_batches == 2
    assert list(changes(filled(composed("model=clip", "seed=1")), filled(cfg))) == ["trainer.accumulate_grad_batches"]


def test_a_directory_of_an_earlier_version_is_one_line(composed: Compose, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(composed("model=clip"), resolve=True))
    with pytest.raises(ConfigError) as refused:
        resumed(composed("model=clip", f"resume={tmp_path}"), [f"resume={tmp_path}"])
    (line,) = refused.value.problems
    assert line.startswith(f"resume: {tmp_path} was written by an earlier alignlab (its modules have moved since): ")


def test_an_error_of_a_part_gets_the_path_of_its_key() -> None:
    cfg = OmegaConf.create({"seed": 0, "data": {"batch_size": 0}, "model": {"net": {"heads": 3, "width": 32}}})
    for said, shown in (
        ("batch_size is 0; it must be at least 1", "data.batch_size is 0; it must be at least 1"),
        ("heads=3 doesn't divide width=32", "model.net.heads=3 doesn't divide width=32"),
        ("data.batch_size is 0", "data.batch_size is 0"),
        ("seed is 0", "seed is 0"),
        ("width is 3", "width is 3"),
    ):
        assert str(cause(ValueError(said), cfg)) == shown
