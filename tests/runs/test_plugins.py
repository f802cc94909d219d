"""A run whose loss, pictures and callback are a plugin's: what it records, and what whoever opens it is asked for."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import own_parts
from alignlab.configs import folders, plugins, signatures
from alignlab.files.result import Result
from alignlab.runs import kinds
from alignlab.runs.building import load_system
from tiny_run import REPOSITORY, TINY_TOWERS

import pytest
from omegaconf import DictConfig, OmegaConf

WORDS = (
    "model=clip",
    "model/loss=soft",
    "data=squares",
    "callbacks=[default,note]",
    "debug=fast",
    "data.num_workers=0",
)
WORDS += ("model.net.vision.patch_size=8", *TINY_TOWERS)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with the plugin's file in `apart`; what this process knows of plugins is as before after."""
    own_parts.write(tmp_path / "apart")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(plugins.VARIABLE, "")
    for module, name in ((plugins, "_active"), (folders, "_first"), (folders, "_main")):
        monkeypatch.setattr(module, name, getattr(module, name))
    yield tmp_path
    signatures.forget()
    sys.modules.pop("my_parts", None)


def test_it_trains_is_recorded_and_asked_for_again(
    elsewhere: Path, prepared: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, own = elsewhere / "run", "plugins=apart/my_parts.py"
    plugins.activate([own], REPOSITORY / "conf")

    def trained(*words: str) -> Result:
        cfg = kinds.TRAIN.checked(prepared(run, *words), words, run)
        kinds.TRAIN.imported(cfg)
        return kinds.TRAIN.run(cfg)

    result = trained(*WORDS, own, "trainer.max_steps=2")
    assert result.status == "ok" and (run / "note.txt").read_text() == "2 steps"
    record = json.loads((run / "plugins.json").read_text())["my_parts"]
    assert record == Result.read(run).plugins["my_parts"] and len(record["sha256"]) == 64
    assert (record["given"], record["version"]) == ("apart/my_parts.py", "1.2")
    saved = OmegaConf.load(run / "config.yaml")
    assert saved.plugins == ["apart/my_parts.py"] and saved.model.loss.share == 0.25 and saved.data.shades == 8

    monkeypatch.setenv(plugins.VARIABLE, "")
    plugins.activate([], REPOSITORY / "conf")  # as in another program
    with pytest.raises(ValueError, match=r"my_parts\.\w+, .*nothing of it is run.*plugins=\[apart/my_parts\.py\]$"):
        load_system(run)
    system, datamodule = load_system(run, plugins="apart/my_parts.py")
    assert type(system.method.loss).__name__ == "Soft" and datamodule.source.shades == 8
    with pytest.raises(ValueError, match=r"plugins=\[apart/my_parts\.py\]"):
        trained(f"resume={run}")
    file = elsewhere / "apart" / "my_parts.py"
    file.write_text(file.read_text() + "# changed\n")
    plugins.activate([own], REPOSITORY / "conf")
    result = trained(f"resume={run}", own, "trainer.max_steps=3")
    (note,) = [note for note in result.notes if "plugin" in note]
    assert result.steps == 3 and note.startswith(
        "plugin my_parts: its files have changed since this run began (SHA-256 "
    )


@pytest.mark.distributed
def test_the_command_line(elsewhere: Path) -> None:
    (elsewhere / "broken.py").write_text("import nothing_of_that_name\n")

    def said(*words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(REPOSITORY / "train.py"), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    shown = said("plugins=./apart/my_parts.py", "--help")
    assert shown.returncode == 0 and "model/loss: info_nce, siglip, soft" in shown.stdout, shown.stderr
    wrong = said("plugins=./apart/my_part.py")
    assert wrong.returncode == 2, wrong.stderr
    assert wrong.stderr == "error: plugins: there is no ./apart/my_part.py; there are my_parts.py\n"
    wrong = said("plugins=./broken.py", "model=clip", "hydra.run.dir=run")
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr
    assert "plugins: ./broken.py can't be imported (ModuleNotFoundError: No module named" in wrong.stderr
    assert json.loads((elsewhere / "run" / "result.json").read_text())["status"] == "failed"
