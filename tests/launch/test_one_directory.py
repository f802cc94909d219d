"""One run in one directory, from the command line: what is refused, in one line, with nothing written."""

import os
from collections.abc import Iterator
from pathlib import Path

from alignlab.configs.hydra_events import HydraEvents
from alignlab.launch import environment, run_lock
from running import PATIENCE, TRAIN, result_of, start
from tiny_run import REPOSITORY, TINY

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

INFER = str(REPOSITORY / "infer.py")
TASK = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}


def contents(directory: Path) -> dict[str, bytes]:
    return {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


def refused(cwd: Path, *command: str, env: dict[str, str] | None = None) -> str:
    """What a command says that ends with code 2, in one line."""
    (cwd / "console.log").unlink(missing_ok=True)
    assert start(*command, cwd=cwd, env=env).wait(PATIENCE) == 2
    (line,) = (cwd / "console.log").read_text().splitlines()
    return line.removeprefix("error: ")


@pytest.mark.distributed
def test_a_directory_that_holds_a_run(tmp_path: Path) -> None:
    run, console = tmp_path / "run", tmp_path / "console"
    console.mkdir()
    first = (TRAIN, *TINY, "trainer.max_steps=2", f"hydra.run.dir={run}")
    assert start(*first, cwd=console).wait(PATIENCE) == 0
    before = contents(run)
    holds = f"{run} holds a training run (config.yaml, checkpoints, metrics.csv): "
    assert refused(console, *first) == (
        f"{holds}go on with resume={run}, or choose another directory (hydra.run.dir=...)"
    )
    asked = refused(console, INFER, "model=nowhere", "prompt_text=x", f"output={run}")
    assert asked == f"{holds}choose another directory (output=...)"
    swept = refused(console, TRAIN, "-m", *TINY, "seed=0,1", f"hydra.sweep.dir={run}")
    assert swept.startswith(holds) and swept.endswith("(hydra.sweep.dir=...)")
    assert contents(run) == before
    assert start(TRAIN, f"resume={run}", "optim.lr=many", cwd=console).wait(PATIENCE) == 2
    assert result_of(run)["status"] == "ok", "what is wrong with a command line is no result of the run that it names"


@pytest.mark.distributed
def test_ranks_that_the_trainer_is_not_for_and_a_second_infer(tmp_path: Path) -> None:
    for rank in "01":
        said = refused(tmp_path, TRAIN, *TINY, "trainer=cpu", env=TASK | {"SLURM_PROCID": rank})
        assert said.startswith("srun has started 2 processes, and this trainer is for one: ")
    said = refused(tmp_path, INFER, "model=x", "prompt_text=x", env=TASK | {"SLURM_PROCID": "1"})
    assert said == "infer.py under torchrun or srun would run the job 2 times; start it without"
    assert [path.name for path in tmp_path.iterdir()] == ["console.log"]
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("task: {}\n")
    with run_lock.held(run):
        assert refused(tmp_path, INFER, f"resume={run}").startswith(f"{run} is in use by process {os.getpid()}; ")


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    state = HydraConfig.instance().cfg
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    HydraConfig.instance().cfg = state


def test_runs_that_begin_in_the_same_second_have_directories_of_their_own(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment.time, "strftime", lambda _: "now")
    for _ in range(3):
        with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
            config = compose("train", overrides=["run_name=twice"], return_hydra_config=True)
        HydraEvents().on_run_start(config)
        assert Path(config.hydra.run.dir).is_dir()
    assert sorted(path.name for path in (in_folder / "outputs" / "twice").iterdir()) == ["now", "now_2", "now_3"]
