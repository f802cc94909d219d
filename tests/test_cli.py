"""The `alignlab` command."""

from pathlib import Path

from alignlab import cli

import pytest
import torch


def test_convert_refuses_what_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save({"nothing": torch.zeros(1)}, tmp_path / "a.pth")
    for direction, expected in (("from-albef", "not a published ALBEF"), ("to-albef", "not an entry of ALBEF")):
        assert cli.main(["convert", direction, str(tmp_path / "a.pth"), str(tmp_path / "b.pth")]) == 2
        assert expected in capsys.readouterr().err
    assert cli.main(["convert", "to-albef", str(tmp_path / "none.ckpt"), str(tmp_path / "b.pth")]) == 2
    assert not (tmp_path / "b.pth").exists()


def test_an_unknown_command_is_bad_input() -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["convrt"])
    assert stopped.value.code == 2
