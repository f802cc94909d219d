"""What a run begins from where nobody says: the newest suitable run, by one decision of all ranks and jobs."""

import json
import logging
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from alignlab.configs.check import check
from alignlab.configs.command_line import arguments, inference_arguments
from alignlab.configs.explain import composed
from alignlab.files.result import Result
from alignlab.launch.processes import this_program
from alignlab.runs.chain import StageFailed
from alignlab.runs.earlier import needs as of_needs
from alignlab.runs.earlier.candidates import OUTPUTS, Wanted, answers, newest, trained_by
from alignlab.runs.earlier.making import make, training_program
from alignlab.runs.earlier.needs import FILE, REWARD, SFT, Need, agreed, completed, needs, promised
from alignlab.runs.kinds import INFER

import pytest
import yaml

WANTED = Wanted("model=sft", trained_by(SFT))


@pytest.fixture
def ended(tmp_path: Path) -> Callable[..., Path]:
    """`ended("sft/1", method)`: a run directory as a training leaves it, each newer than the one before."""
    made: list[Path] = []

    def write(name: str, method: str = SFT, status: str = "ok", export: str = "config.json", **more: object) -> Path:
        run_dir = tmp_path / "outputs" / name
        (run_dir / "export").mkdir(parents=True)
        (run_dir / "export" / export).write_text("{}")
        data = "alignlab.data.language.modules.LanguageDataModule"
        cfg = {"layout": 2, "model": {"_target_": method}, "data": {"_target_": data}} | more
        (run_dir / "config.yaml").write_text(yaml.safe_dump(cfg))
        Result(status=status, steps=7).write(run_dir)
        made.append(run_dir)
        os.utime(run_dir / "export", (len(made), len(made)))
        return run_dir

    return write


def test_the_newest_run_that_fits_and_why_newer_ones_do_not(ended: Callable[..., Path], tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    assert newest(WANTED, outputs) == (None, [])
    ended("sft/old")
    good = ended("chain/1/sft")  # a stage
    ended("clip/1", "alignlab.methods.clip.ClipMethod")  # not even worth a word
    bad = {
        "it is interrupted": ended("sft/stopped", status="interrupted"),
        "it has no export/": ended("sft/empty"),
        "was written by an earlier alignlab": ended("sft/ancient", layout=1),
        "one of a sweep's": ended("sweep/0"),
        "names no base_model_name_or_path": ended("sft/adapter", export="adapter_config.json"),
        "it hasn't ended": ended("sft/running"),
    }
    (bad["it has no export/"] / "export" / "config.json").unlink()
    os.utime(bad["it has no export/"] / "export", (5, 5))
    (bad["it hasn't ended"] / "result.json").unlink()
    (outputs / "sweep" / "sweep.json").write_text("[]")
    (outputs / "broken").mkdir()
    (outputs / "broken" / "config.yaml").write_text("[")
    found, passed_by = newest(WANTED, outputs)
    assert found == good
    assert len(passed_by) == len(bad)
    for reason, run_dir in bad.items():
        assert any(line.startswith(f"{run_dir}: ") and reason in line for line in passed_by), (reason, passed_by)


def test_a_judge_and_a_reward_model(ended: Callable[..., Path], tmp_path: Path) -> None:
    reward, judge = ended("chain/1/reward", REWARD), ended("chain/1/judge", REWARD)
    found, passed_by = newest(Wanted("model=reward", trained_by(REWARD)), tmp_path / "outputs")
    assert found == reward and passed_by == [f"{judge}: it is a judge, which no training sees"]
    assert newest(Wanted("a language model", answers), tmp_path / "outputs") == (None, [])


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["model=dpo"], ["model.net.path"]),
        (["model=simpo", "trainer=fsdp"], ["model.net.path"]),
        (["model=ppo", "trainer=deepspeed"], ["model.net.path", "model.reward"]),
        (["model=grpo", "model.reward=my.function"], ["model.net.path"]),
        (["model=sft"], []),
        (["model=reward"], []),
        (["model=albef"], []),
    ],
)
def test_what_a_bare_command_lacks(words: list[str], keys: list[str]) -> None:
    cfg = composed(arguments(words))
    assert [need.key for need in needs(cfg)] == keys
    check(promised(cfg))


def test_explicit_values_stay_and_what_is_lacking_is_filled_in(
    ended: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sft = ended("sft/1")
    cfg = composed(arguments(["model=ppo", "model.reward=my.function"]))
    with caplog.at_level(logging.INFO):
        whole = completed(cfg, tmp_path / "run", tmp_path / "outputs")
    assert (whole.model.net.path, whole.model.reward, whole.data.tokenizer) == (str(sft), "my.function", str(sft))
    assert [record.getMessage() for record in caplog.records] == [
        f"model.net.path: taking {sft} (7 steps), the newest run of model=sft"
    ]


def test_further_ranks_take_what_rank_zero_took(
    ended: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, run_dir = ended("sft/1"), tmp_path / "run"
    cfg = composed(arguments(["model=dpo"]))
    completed(cfg, run_dir, tmp_path / "outputs")
    ended("sft/2")  # while ranks start
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert completed(cfg, run_dir, tmp_path / "outputs").model.net.path == str(first)
    Result(reason="no disk").write(tmp_path)
    with pytest.raises(ValueError, match="rank zero found nothing to begin from: no disk"):
        completed(cfg, tmp_path, tmp_path / "outputs")


def test_processes_that_share_outputs_train_one_model(
    ended: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def trained(small: object, key: str) -> None:
        made.append(ended(f"sft/{len(made)}"))

    monkeypatch.setattr(of_needs, "make", trained)  # the real one: test_made_first, which is slow
    need = Need("model.net.path", WANTED, small=of_needs.SMALL_SFT)
    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(lambda n: agreed(tmp_path / str(n) / FILE, [need], tmp_path / "outputs"), range(4)))
    assert len(made) == 1 and taken == [{"model.net.path": str(made[0])}] * 4
    rewards = Need("model.net.path", Wanted("model=reward", trained_by(REWARD)))
    reward = ended("reward/1", REWARD)  # another job of the sweep needs another kind for the same key
    assert agreed(tmp_path / "0" / FILE, [rewards], tmp_path / "outputs") == {"model.net.path": str(reward)}
    ended("sft/later")
    assert agreed(tmp_path / "0" / FILE, [need], tmp_path / "outputs") == taken[0]  # jobs of a sweep


@pytest.mark.parametrize("backend", ["transformers", "deepspeed", "int8", "tensor_parallel"])
def test_a_bare_infer_takes_the_newest_language_model(ended: Callable[..., Path], tmp_path: Path, backend: str) -> None:
    ended("sft/1")
    newest_one = ended("ppo/1", "alignlab.methods.ppo.PpoMethod")
    ended("reward/1", REWARD)
    cfg = INFER.checked(composed(inference_arguments([f"backend={backend}"]), "infer"), [], tmp_path / "run")
    assert completed(cfg, tmp_path / "run", tmp_path / "outputs").model_path == str(newest_one)
    for words in (["backend=scripted"], ["model=null"]):
        cfg = INFER.checked(composed(inference_arguments(words), "infer"), [], tmp_path / "run")
        assert completed(cfg, tmp_path / "run", tmp_path / "none").model_path is None


def test_nothing_to_begin_from(tmp_path: Path) -> None:
    cfg = composed(inference_arguments(["task=classify"]), "infer")
    with pytest.raises(ValueError, match="model_path: there is no run of a model of pictures and texts under"):
        completed(cfg, tmp_path / "run", tmp_path / "outputs")
    cfg = composed(inference_arguments(["backend=vllm"]), "infer")
    with pytest.raises(ValueError, match="backend=vllm can't run here"):  # before anything is trained for it
        completed(cfg, tmp_path / "run", tmp_path / "outputs")


def test_a_terminal_without_a_prompt_is_a_chat() -> None:
    assert inference_arguments(["model=x"], terminal=True) == ["model_path=x", "task=chat"]
    assert inference_arguments(["model=x"]) == ["model_path=x"]
    for word in ("prompt_text=a", "input=b.txt", "task=score", "resume=c", "-m"):
        assert inference_arguments([word], terminal=True) == [word]


def test_the_program_that_trains() -> None:
    assert training_program(["python", "/a/infer.py"]) == ["python", "/a/train.py"]
    assert training_program(["python", "/a/train.py"]) == ["python", "/a/train.py"]


@pytest.mark.slow
def test_made_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real thing, of one step, as `train.py` would start it."""
    repository = Path(__file__).parents[3]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(repository / "infer.py")])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    assert this_program()[1].endswith("infer.py")
    small = of_needs.Small(("experiment=rlhf_movies_sft", "trainer.max_steps=1", "++trainer.limit_val_batches=1"), "")
    need = Need("model_path", Wanted("a language model", answers), small=small)
    taken = agreed(tmp_path / "run" / FILE, [need])
    assert Path(taken["model_path"]).parent == OUTPUTS / "rlhf_movies_sft"
    assert list(json.loads((tmp_path / "run" / FILE).read_text()).values()) == list(taken.values())
    wrong = of_needs.Small(("experiment=rlhf_movies_sft", "trainer.max_steps=many"), "")
    with pytest.raises(StageFailed, match="exit code 2"):
        make(wrong, "model_path")
