"""The folder of checkpoints: only whole files under final names, rotation, the best, the newest that can be read."""

import json
from pathlib import Path

from alignlab import cli
from alignlab.callbacks.keeping.checkpoint_folder import CheckpointFolder, damage, newest_readable, read_index

import pytest
import torch


def save(folder: CheckpointFolder, step: int, sharded: bool = False, **metrics: float) -> None:
    temporary = folder.begin(step)
    if sharded:
        temporary.mkdir()
        torch.save({"part": step}, temporary / "0.pt")
    else:
        torch.save({"weights": torch.full((1000,), step), "step": step}, temporary)
    folder.finish(step, {f"val/{name}": value for name, value in metrics.items()})


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.glob("*.ckpt"))


def test_rotation_and_the_best(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep_last=2, keep_best=1, monitor="val/loss", mode="min")
    for step, loss in ((1, 3.0), (2, 1.0), (3, float("nan")), (4, 2.0), (5, 1.0)):
        assert folder.wanted({"val/loss": loss}) == (step in (1, 2)), "better than all before"
        save(folder, step, loss=loss)
    assert names(tmp_path) == ["best.ckpt", "last.ckpt", *(f"step-0000000{step}.ckpt" for step in (2, 4, 5))]
    assert [torch.load(tmp_path / name)["step"] for name in ("best.ckpt", "last.ckpt")] == [2, 5]
    assert not list(tmp_path.glob(".*")), "nothing temporary is left"
    save(folder, 4, loss=0.5)
    assert [entry.step for entry in folder.entries] == [2, 4], "the run has gone back: what was later is out of turn"
    assert torch.load(tmp_path / "last.ckpt")["step"] == 4


def test_folders_of_sharding_strategies(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep_last=1)
    for step in (1, 2):
        save(folder, step, sharded=True)
    assert names(tmp_path) == ["last.ckpt", "step-00000002.ckpt"]
    assert torch.load(tmp_path / "last.ckpt" / "0.pt") == {"part": 2}
    (tmp_path / "last.ckpt" / "0.pt").write_bytes(b"cut")
    with pytest.raises(ValueError, match=r"step-00000002\.ckpt is cut off: 3 of"):
        newest_readable(tmp_path)


@pytest.mark.parametrize("harm", ["cut", "flip", "empty"])
def test_the_one_before_a_damaged_one(tmp_path: Path, harm: str) -> None:
    folder = CheckpointFolder(tmp_path, keep_last=3)
    for step in (1, 2, 3):
        save(folder, step)
    newest = tmp_path / "step-00000003.ckpt"
    content = bytearray(newest.read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 1
    newest.write_bytes({"cut": content[:-100], "flip": content, "empty": b""}[harm])
    file, complaints = newest_readable(tmp_path)
    assert file == tmp_path / "step-00000002.ckpt" and len(complaints) == 1
    assert complaints[0].startswith("step-00000003.ckpt is " + ("damaged in" if harm == "flip" else "cut off"))
    (tmp_path / "index.json").unlink()
    assert newest_readable(tmp_path)[0] == file, "without an index too"
    CheckpointFolder(tmp_path, keep_last=3).forget_after(2)
    assert torch.load(tmp_path / "last.ckpt")["step"] == 2


def test_what_a_crash_may_leave(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    save(folder, 1)
    torch.save({}, folder.begin(2))  # killed before `finish`
    again = CheckpointFolder(tmp_path)
    assert [entry.step for entry in again.entries] == [1]
    again.forget_after(1)
    assert names(tmp_path) == ["last.ckpt", "step-00000001.ckpt"] and not list(tmp_path.glob(".*"))
    assert newest_readable(tmp_path / "nowhere") == (None, [])
    assert damage(tmp_path / "missing.ckpt").startswith("can't be read")


@pytest.mark.parametrize("harm", [None, "", '{"a": 1}', '[{"file": 3}]', "[[]]"])
def test_a_lost_index_is_made_anew_from_what_checkpoints_know(tmp_path: Path, harm: str | None) -> None:
    folder = CheckpointFolder(tmp_path, monitor="val/loss")
    for step, validated in ((1, {"val/loss": 3.0}), (2, {"val/loss": 1.0}), (3, {}), (4, {"val/loss": 2.0})):
        content = {"weights": torch.ones(3), "validated": validated, "metrics": {"val/loss": 1.0, "train/loss": 2.0}}
        torch.save(content, folder.begin(step))
        folder.finish(step, validated)
    index = tmp_path / "index.json"
    expected = folder.entries
    index.unlink() if harm is None else index.write_text(harm)
    again = CheckpointFolder(tmp_path, monitor="val/loss")
    assert again.entries == expected and [entry.step for entry in expected] == [2, 3, 4]
    assert not again.wanted({"val/loss": 1.5}) and again.wanted({"val/loss": 0.5})
    again.forget_after(3)
    assert json.loads(index.read_text())[0]["metrics"] == {"val/loss": 1.0}


def test_the_best_afterwards(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints", keep_best=-1, monitor="val/loss")
    for step, loss, recall in ((1, 3.0, 0.1), (2, 1.0, 0.3), (3, 2.0, 0.9), (4, 4.0, 0.2)):
        save(folder, step, loss=loss, recall=recall)
    assert len(read_index(folder.path)) == 4
    assert cli.main(["best", str(tmp_path), "--metric", "val/recall", "--mode", "max"]) == 0
    assert capsys.readouterr().out.strip() == str(folder.path / "step-00000003.ckpt")
    assert cli.main(["best", str(tmp_path), "--metric", "val/other"]) == 2
    assert "there are: val/loss, val/recall" in capsys.readouterr().err
