"""Chains: whom a word of the command line reaches, what is refused before the first stage, signals, resuming, one result."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from alignlab.configs.check import ConfigError
from alignlab.files.result import Result
from alignlab.launch import run_lock
from alignlab.runs import chain, kinds
from running import alive, end, result_of, until
from tiny_run import REPOSITORY, TINY

import pytest
from omegaconf import DictConfig

CONF = REPOSITORY / "conf"
# A program in the place of train.py's runs, with a chain's parent in front: notes its words, waits where `do=wait` says so.
STAGE = """
import json, os, pathlib, signal, sys, time
words = dict(w.lstrip("+").split("=", 1) for w in sys.argv[1:])
folder = pathlib.Path(words["hydra.run.dir"].strip("'"))
folder.mkdir(parents=True, exist_ok=True)
result = {"status": "ok", "reason": None, "metrics": {"val/loss": 1.5, "nan": None}, "steps": 3, "seed": 7}
def stop(number, _):
    left(dict(result, status="interrupted", reason=f"{signal.Signals(number).name} at step 3"), 128 + number)
def left(result, code):
    (folder / "result.json").write_text(json.dumps(result))
    os._exit(code)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, stop)
(folder / "config.yaml").write_text("")
(folder / "words.json").write_text(json.dumps([os.getpid(), *sys.argv[1:]]))
if words.get("do") == "wait" and "resume" not in words:
    time.sleep(120)
if words.get("do") == "fail":
    left(dict(result, status="failed", reason="why"), 2)
left(result, 0)
"""
PARENT = """
import sys
from pathlib import Path
from alignlab.runs import chain, kinds, program
chain.this_program = lambda: [sys.executable, sys.argv[0] + ".stage"]
chain._problems = lambda *_: ()  # its stages are none of ours
program.main("train", Path({conf!r}))
"""


def checked(composed: Callable[..., DictConfig], *words: str) -> dict[str, tuple[str, ...]]:
    """The words of each stage of a command line of train.py."""
    kind, words = kinds.typed("train", words)
    assert kind is kinds.CHAIN
    cfg = chain.checked(composed(*words, program="chain"), Path("outputs/x"))
    return {stage.name: stage.words for stage in chain.stages(cfg, Path("outputs/x"))}


def test_words_for_all_for_one_and_a_stage_left_out(composed: Callable[..., DictConfig]) -> None:
    line = ("experiment=rlhf_movies", "seed=3", "trainer=cpu", "stages.judge=null", "run_name=z", "hydra.run.dir=here")
    found = checked(
        composed, *line, "stages.ppo.model.kl.coefficient=0.1", "stages.ppo.trainer=ddp", "stages.ppo.model.judge=null"
    )
    assert list(found) == ["sft", "reward", "dpo", "ppo"]
    assert found["sft"] == ("experiment=rlhf_movies_sft", "seed=3", "trainer=cpu")
    assert found["dpo"][1] == "model.net.path='outputs/x/sft'"
    assert {"trainer=ddp", "model.kl.coefficient=0.1", "model.judge=null"} <= set(found["ppo"])
    assert "trainer=cpu" not in found["ppo"], "the last word of a key counts"


def test_all_problems_of_all_stages_at_once(composed: Callable[..., DictConfig]) -> None:
    with pytest.raises(ConfigError) as refused:
        checked(composed, "chain=rlhf_movies", "stages.ppo.model.kl.coeficient=1", "stages.dpo.model.betta=1", "trainer.max_steps=many",
                "stages.pppo.seed=1", "stages.reward=null", "stages.sft.trainer=dpd")  # fmt: skip
    found = refused.value.problems
    assert any(p.startswith("stages.ppo.model.kl.coeficient: unknown key; did you mean coefficient?") for p in found)
    assert any(p.startswith("stages.dpo.model.betta: unknown key; did you mean beta?") for p in found)
    assert "trainer.max_steps: expects int, got 'many'" in found, "what was typed for all is said once"
    assert any(p.startswith("stages.pppo: no such stage; did you mean ppo?") for p in found)
    assert any(p.startswith("stages.sft.trainer=dpd: no such choice; did you mean ddp?") for p in found)
    assert "stages.ppo.model.reward: stage reward doesn't come before; set stages.ppo.model.reward=..." in found


def test_a_sweep_over_what_stages_get() -> None:
    _, words = kinds.typed("train", ["-m", "chain=rlhf_movies", "seed=0,1", "stages.ppo.trainer=cpu"])
    assert words == [
        *("-m", "chain=rlhf_movies"),
        "overrides=['seed=0','stages.ppo.trainer=cpu'],['seed=1','stages.ppo.trainer=cpu']",
    ]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """`start(*words)`: a chain of two stages in a process, told what each of them shall do."""
    (tmp_path / "parent.py").write_text(PARENT.format(conf=str(CONF)))
    (tmp_path / "parent.py.stage").write_text(STAGE)
    begun: list[subprocess.Popen] = []

    def run(*words: str) -> subprocess.Popen:
        first = ["chain=rlhf_movies", f"hydra.run.dir={tmp_path}/run"] if not any("resume=" in w for w in words) else []
        left_out = [f"stages.{name}=null" for name in ("judge", "dpo", "ppo")] if first else []
        with (tmp_path / "console.log").open("ab") as console:
            begun.append(
                subprocess.Popen(
                    [sys.executable, str(tmp_path / "parent.py"), *first, *left_out, *words],
                    cwd=tmp_path,
                    stdout=console,
                    stderr=console,
                    start_new_session=True,
                )
            )
        return begun[-1]

    yield run
    end(*begun)


def words_of(folder: Path) -> list:
    return json.loads((folder / "words.json").read_text())


@pytest.mark.distributed
def test_stages_run_in_order_and_leave_one_result(start: Callable[..., subprocess.Popen], tmp_path: Path) -> None:
    assert start("seed=3", "objective=reward/val/loss", "stages.sft.data.a=1").wait(300) == 0
    run = tmp_path / "run"
    assert words_of(run / "sft")[1:] == [
        *("experiment=rlhf_movies_sft", "seed=3", "data.a=1", f"hydra.run.dir='{run}/sft'"),
    ]
    written = result_of(run)
    assert written["status"] == "ok" and written["metrics"] == {"sft/val/loss": 1.5, "reward/val/loss": 1.5}
    assert (written["steps"], written["objective"], written["seed"]) == (6, 1.5, 7)
    assert not (run / "ppo").exists() and not (run / run_lock.FILE).exists()


@pytest.mark.distributed
def test_a_failed_stage_ends_the_chain_with_its_code(start: Callable[..., subprocess.Popen], tmp_path: Path) -> None:
    assert start("+stages.sft.do=fail").wait(300) == 2
    written = Result.read(tmp_path / "run")
    assert (written.status, written.reason) == ("failed", "StageFailed: stage sft failed: why")
    assert not (tmp_path / "run" / "reward").exists()
    assert "error: stage sft failed: why" in (tmp_path / "console.log").read_text()


@pytest.mark.distributed
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_reaches_the_stage_and_the_chain_goes_on_there(
    start: Callable[..., subprocess.Popen], tmp_path: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    parent = start("+stages.reward.do=wait")
    until(lambda: (run / "reward" / "words.json").exists(), parent)
    child = words_of(run / "reward")[0]
    os.kill(parent.pid, number)
    assert parent.wait(60) == 128 + number and not alive(child)
    written = result_of(run)
    assert (written["status"], written["reason"]) == ("interrupted", f"stage reward: {number.name} at step 3")
    assert written["metrics"] == {"sft/val/loss": 1.5, "reward/val/loss": 1.5}
    before = words_of(run / "sft")
    assert start(f"resume={run}").wait(300) == 0
    assert words_of(run / "sft") == before, "what is done isn't done again"
    assert words_of(run / "reward")[-1] == f"resume='{run}/reward'" and result_of(run)["status"] == "ok"


@pytest.mark.distributed
@pytest.mark.slow
def test_a_chain_of_real_trainings(tmp_path: Path) -> None:
    stages = "stages={one: [model=clip], two: ['ckpt_path={run}/one/checkpoints/last.ckpt']}"
    words = [
        "chain=rlhf_movies",
        "stages.sft=null",
        "stages.reward=null",
        "stages.judge=null",
        "stages.dpo=null",
        "stages.ppo=null",
    ]
    words += [
        f"+{stages}",
        *TINY,
        "trainer.max_steps=2",
        "stages.two.trainer.max_steps=3",
        f"hydra.run.dir={tmp_path}/run",
    ]
    done = subprocess.run(
        [sys.executable, "train.py", *words], cwd=REPOSITORY, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    assert result_of(tmp_path / "run" / "two")["steps"] == 3
    assert result_of(tmp_path / "run")["metrics"]["two/val/loss"] > 0
