"""Stages in a row: their order, what they get, what is left when one fails; every stage of an experiment composes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from alignlab.configs import check as config
from alignlab.runs.chain import run_stages
from tiny_run import REPOSITORY

# A program in the place of train.py: notes its command line and leaves the result that its first override asks for.
PROGRAM = """
import json, pathlib, sys
words = sys.argv[1:]
folder = pathlib.Path(next(w for w in words if w.startswith("hydra.run.dir=")).partition("=")[2])
folder.mkdir(parents=True)
(folder / "words.json").write_text(json.dumps(words))
status = words[0].partition("=")[2]
(folder / "result.json").write_text(json.dumps({"status": status, "reason": "why", "metrics": {"val/loss": 1.5, "nan": None}, "steps": 3}))
sys.exit(0 if status == "ok" else 2)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    return file


def test_stages_run_in_order_with_the_command_line_and_leave_one_result(program: Path, tmp_path: Path) -> None:
    stages = {"one": ["status=ok"], "none": None, "two": ["status=ok", "from={run}/one"]}
    line = ["experiment=x", "seed=3", "+data.a=1", "stages.none=null", "run_name=z", "hydra.run.dir=here"]
    result = run_stages(stages, tmp_path / "run", line, program, objective="two/val/loss")
    words = json.loads((tmp_path / "run" / "two" / "words.json").read_text())
    assert words == [
        "status=ok",
        f"from={tmp_path}/run/one",
        "seed=3",
        "+data.a=1",
        f"hydra.run.dir={tmp_path}/run/two",
    ]
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    assert written["status"] == "ok" and written["metrics"] == {"one/val/loss": 1.5, "two/val/loss": 1.5}
    assert written["steps"] == 6 and result.objective == 1.5 and not (tmp_path / "run" / "none").exists()


def test_a_failed_stage_ends_the_run_and_is_named(program: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stage one failed: why"):
        run_stages({"one": ["status=failed"], "two": ["status=ok"]}, tmp_path / "run", [], program)
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    assert written["status"] == "failed" and written["reason"] == "stage one failed: why"
    assert not (tmp_path / "run" / "two").exists()
    with pytest.raises(KeyboardInterrupt):
        run_stages({"one": ["status=interrupted"]}, tmp_path / "again", [], program)
    assert json.loads((tmp_path / "again" / "result.json").read_text())["status"] == "interrupted"


def chained() -> list[Path]:
    files = sorted((REPOSITORY / "conf" / "experiment").glob("*.yaml"))
    return [file for file in files if "stages" in OmegaConf.load(file)]


@pytest.mark.parametrize("file", chained(), ids=lambda file: file.stem)
def test_every_stage_composes(composed: Callable[..., DictConfig], file: Path) -> None:
    for overrides in OmegaConf.load(file).stages.values():
        config.check(composed(*(word.replace("{run}", "outputs/x") for word in overrides)))
