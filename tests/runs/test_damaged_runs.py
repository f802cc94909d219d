"""A run directory in which something is damaged: the newest sound weights with a note, or one line with the file's name."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from alignlab.callbacks.keeping.checkpoint_folder import trained
from alignlab.files.weights import read_file
from alignlab.runs import resuming
from alignlab.runs.building import load_system
from alignlab.runs.train import train
from hostile import Touch
from tiny_run import TINY

import pytest
import torch
from omegaconf import DictConfig


@pytest.fixture(scope="module")
def made() -> Iterator[dict[str, Path]]:
    return {}


@pytest.fixture
def run_dir(
    made: dict[str, Path], prepared: Callable[..., DictConfig], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A copy of a run whose best checkpoint isn't the newest; links become files."""
    if not made:
        folder = tmp_path_factory.mktemp("damaged") / "run"
        words = ("trainer.max_steps=6", "callbacks.checkpoint.every_n_steps=2", "callbacks.checkpoint.keep_last=2")
        train(prepared(folder, *TINY, *words, "trainer.val_check_interval=2", "callbacks.checkpoint.keep_best=1"))
        made["run"] = folder
    copy = tmp_path_factory.mktemp("copy") / "run"
    shutil.copytree(made["run"], copy)
    return copy


def flip(file: Path, share: float = 0.5) -> None:
    content = bytearray(file.read_bytes())
    content[int(len(content) * share)] ^= 1
    file.write_bytes(content)


def same(system: torch.nn.Module, file: Path) -> bool:
    held = read_file(file, "test")["state_dict"]
    return all(torch.equal(value, held[name]) for name, value in system.state_dict().items())


def test_a_damaged_best_gives_way_to_the_newest_sound_one(run_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = run_dir / "checkpoints"
    steps = sorted(folder.glob("step-*.ckpt"))
    assert trained(run_dir) == folder / "best.ckpt"
    flip(folder / "best.ckpt")
    system, _ = load_system(run_dir)
    assert same(system, steps[-1])
    assert f"{folder / 'best.ckpt'} is damaged in" in caplog.text and f"{steps[-1].name} instead" in caplog.text
    (steps[-1]).write_bytes(steps[-1].read_bytes()[:-1000])
    assert trained(run_dir) == steps[-2]
    for file in folder.glob("*.ckpt"):
        flip(file, 0.4)
    with pytest.raises(ValueError, match=r"run directory: \S+best\.ckpt is damaged") as found:
        load_system(run_dir)
    assert "\n" not in str(found.value)


def test_a_damaged_tokenizer_is_not_read(run_dir: Path) -> None:
    load_system(run_dir)
    file = run_dir / "tokenizer" / "tokenizer.json"
    text = file.read_text()
    file.write_text(text.replace('"a"', '"b"', 1) if '"a"' in text else text.replace("1", "2", 1))
    with pytest.raises(ValueError, match=r"tokenizer/tokenizer\.json is damaged: its bytes"):
        load_system(run_dir)


def test_a_checkpoint_with_code_in_it_is_one_line(run_dir: Path, prepared: Callable[..., DictConfig]) -> None:
    """Not torch's advice to read it with weights_only=False."""
    mark, words = run_dir / "MARK", [f"resume={run_dir}", "trainer.max_steps=8"]
    for file in (run_dir / "checkpoints").glob("*.ckpt"):
        content = torch.load(file, weights_only=True)
        torch.save(content | {"callbacks": Touch(str(mark))}, file)
    (run_dir / "checkpoints" / "index.json").unlink()
    with pytest.raises(ValueError, match=r"checkpoint: \S+\.ckpt can't be read without running code") as found:
        train(resuming.resumed(prepared(run_dir, *words), words))
    assert "\n" not in str(found.value) and "weights_only" not in str(found.value) and not mark.exists()
