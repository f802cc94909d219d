"""Folders of sharding strategies: torch unpickles their index and their values, so both are looked at before."""

import io
import pickle
from pathlib import Path

from alignlab.files.shards import check_shards, check_zero
from hostile import Touch

import pytest
import torch
import torch.distributed.checkpoint as dcp

SAID = "nothing of it was run|without running code"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    state = {"weight": torch.zeros(3, dtype=torch.bfloat16), "groups": [1, 2], "lr": 0.5}
    dcp.save(state, checkpoint_id=str(tmp_path / "step"), no_dist=True)
    return tmp_path / "step"


def test_what_torch_wrote_is_read(folder: Path) -> None:
    check_shards(folder, "resume")


def test_an_index_that_runs_code(folder: Path, tmp_path: Path) -> None:
    index = folder / ".metadata"
    with index.open("rb") as file:
        known = pickle.load(file)
    known.planner_data = Touch(str(tmp_path / "MARK"))
    index.write_bytes(pickle.dumps(known))
    with pytest.raises(ValueError, match=f"^resume: .*{SAID}"):
        check_shards(folder, "resume")
    assert not (tmp_path / "MARK").exists()
    dcp.load({"lr": 0.0}, checkpoint_id=str(folder), no_dist=True)
    assert (tmp_path / "MARK").exists(), "torch itself is careful now: this look isn't needed any more"


def test_a_value_that_runs_code(tmp_path: Path) -> None:
    folder, mark = tmp_path / "step", tmp_path / "MARK"
    dcp.save({"lr": Touch(str(mark))}, checkpoint_id=str(folder), no_dist=True)
    with pytest.raises(ValueError, match=f"^resume: .*{SAID}"):
        check_shards(folder, "resume")
    assert not mark.exists()


@pytest.mark.parametrize("place", [0, 20, -3])
def test_a_damaged_index(folder: Path, place: int) -> None:
    content = bytearray((folder / ".metadata").read_bytes())
    content[place] ^= 0x55
    (folder / ".metadata").write_bytes(content)
    with pytest.raises(ValueError, match=r"^resume: .*step") as found:
        check_shards(folder, "resume")
    assert "\n" not in str(found.value)


def test_what_deepspeed_reads(tmp_path: Path) -> None:
    torch.save({"module": {"w": torch.zeros(2)}, "step": 3}, tmp_path / "mp_rank_00_model_states.pt")
    check_zero(tmp_path, "resume")
    buffer = io.BytesIO()
    torch.save({"x": Touch(str(tmp_path / "MARK"))}, buffer)
    (tmp_path / "zero_pp_rank_0_optim_states.pt").write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match=r"names .*nothing of it was run"):
        check_zero(tmp_path, "resume")
    assert not (tmp_path / "MARK").exists()
