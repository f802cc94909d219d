"""`alignlab new`: the project that it writes composes as the page says, is called as it was asked to be, and clobbers nothing."""

import sys
from collections.abc import Callable
from pathlib import Path

from alignlab import cli
from alignlab.configs import check as config
from alignlab.configs import folders, plugins, signatures
from alignlab.tools.new import TEMPLATE
from pages import COMMANDS
from tiny_run import REPOSITORY

import pytest
from omegaconf import DictConfig


def test_the_project_composes_under_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, composed: Callable[..., DictConfig], capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(plugins.VARIABLE, "")
    for module, name in ((plugins, "_active"), (folders, "_first"), (folders, "_main")):
        monkeypatch.setattr(module, name, getattr(module, name))
    assert cli.main(["new", "my_lab"]) == 0
    said = capsys.readouterr().out
    assert "cd my_lab && alignlab train plugins=my_lab experiment=my_lab" in said
    files = [file for file in Path("my_lab").rglob("*") if file.is_file()]
    assert len(files) == len([f for f in TEMPLATE.rglob("*") if f.is_file() and "__pycache__" not in f.parts]) == 11
    assert not [file for file in files if "my_project" in file.read_text() or "my_project" in str(file)]
    monkeypatch.chdir("my_lab")
    plugins.activate(["plugins=my_lab"], REPOSITORY / "conf")
    cfg = composed("experiment=my_lab", "plugins=my_lab", "model.loss.smoothing=0.2")
    config.check(cfg)
    Path("my_loss.py").write_text(
        "from alignlab.losses.contrastive import InfoNce\n\n\nclass Mine(InfoNce):\n    pass\n"
    )
    typed = [words for page, words in COMMANDS if page == "own_parts.md" and words[:2] == ["alignlab", "train"]]
    assert len(typed) > 5
    for words in typed:  # the page's commands, as they stand
        named = [word.replace("my_project", "my_lab") for word in words[2:] if not word.startswith(("--", "resume="))]
        if any(word.startswith("plugins=") for word in named):
            config.check(composed(*named))
    assert cfg.model.loss._target_ == "my_lab.loss.Smoothed" and cfg.data.source == "my_lab.pictures.Shapes"
    signatures.forget()


@pytest.mark.parametrize(
    ("name", "said"),
    [("my-lab", "can't be a package's name"), ("class", "can't be a package's name"), ("json", "there is a package json already"),
     ("torch", "there is a package torch already"), ("here", "here is there already")],
)  # fmt: skip
def test_names_that_cannot_be(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert cli.main(["new", name]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and said in told and told.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
