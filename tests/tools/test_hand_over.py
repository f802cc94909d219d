"""What is handed over to TRL, verl and OpenRLHF: prompts, weights, rewards that score alike, the run's settings."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from alignlab.cli import main
from alignlab.runs import train as run
from alignlab.tools.hand_over import reward as standalone
from alignlab.tools.hand_over.job import opened
from tiny_policy import save_model

import pytest
import torch
from omegaconf import DictConfig
from transformers import AutoModelForCausalLM, AutoTokenizer

pytest.importorskip("peft", reason="needs the extra rlhf")
Prepare = Callable[..., DictConfig]
REWARDS = '''"""Rewards in three manners."""


def right(prompts, completions, answer, **columns):
    return [float(a in c) for a, c in zip(answer, completions)]


async def short(prompts, responses):
    return [-len(r) / 100 - len(p) / 1000 for p, r in zip(prompts, responses)]


def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return {"score": float(ground_truth in solution_str), "seen": 1.0}


def lonely(prompts, responses):
    import a_neighbour

    return a_neighbour.score(responses)
'''
NAMES = ("right", "short", "compute_score")


@pytest.fixture
def trained(prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Trains a step of a policy on own prompts with own rewards."""
    (tmp_path / "hand_rewards.py").write_text(REWARDS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "hand_rewards", raising=False)
    rows = [{"prompt": f"the film {word}", "answer": word} for word in "is was and not so very quite dull".split()]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = save_model(tmp_path / "start")

    def train(*words: str) -> Path:
        small = (
            "data.batch_size=4",
            "model.response_length=6",
            "trainer.max_steps=1",
            "callbacks=default",
            "data.val_share=0.3",
        )
        own = ("data=jsonl", "data.kind=prompt", f"data.path={tmp_path / 'prompts.jsonl'}", f"model.net.path={path}")
        folder = tmp_path / f"run{len(list(tmp_path.glob('run*')))}"
        result = run.train(
            prepared(folder, *words, *own, *small, "callbacks.progress=null", "trainer.val_check_interval=1")
        )
        assert result.status == "ok", result.reason
        return folder

    return train


def imported(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("handed_over_reward", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def handed(library: str, source: Path, target: Path, rewards: tuple[str, ...] = NAMES) -> int:
    return main(
        ["hand-over", library, str(source), str(target), "--plugins", *[f"hand_rewards.{name}" for name in rewards]]
    )


def test_rewards_prompts_and_weights_are_those_of_the_run(trained, tmp_path: Path, capsys) -> None:
    named = ", ".join(f"{name}: hand_rewards.{name}" for name in NAMES)
    words = ("model=grpo", "model.group_size=2", f"model.reward={{{named}}}", "model.scoring.weights={short: 0.5}")
    source = trained(*words, "model.peft.rank=2", "model.objective.clip_high=0.28", "model.missing_end_penalty=1")
    for library in ("trl", "verl", "openrlhf"):
        assert handed(library, source, tmp_path / library) == 0, capsys.readouterr().err
    assert "missing_end_penalty=1 (subtract)" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "trl" / "train.jsonl").read_text().splitlines()]
    assert rows and all(row["prompt"].split()[-1] == row["answer"] for row in rows)
    written = imported(tmp_path / "trl" / "reward.py")
    prompts, answers = [row["prompt"] for row in rows], [row["answer"] for row in rows]
    said = [f" {answers[0]} good" for _ in rows]
    scores = written.reward(prompts, said, answer=answers, trainer_state=None)
    wanted = [
        2.0 * (a in said[0]) - 0.5 * (len(said[0]) / 100 + len(p) / 1000) for p, a in zip(prompts, answers, strict=True)
    ]
    assert scores == pytest.approx(wanted)

    labels = [json.loads(line) for line in (tmp_path / "openrlhf" / "train.jsonl").read_text().splitlines()]
    function = imported(tmp_path / "openrlhf" / "reward.py").reward_func
    queries = [p + r for p, r in zip(prompts, said, strict=True)]
    found = function(queries, prompts, [row["label"] for row in labels])
    assert isinstance(found["rewards"], torch.Tensor) and found["rewards"].tolist() == pytest.approx(wanted)

    parquet = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "verl" / "train.parquet").to_pylist()
    score = imported(tmp_path / "verl" / "reward.py").compute_score
    given = [
        (row["data_source"], text, row["reward_model"]["ground_truth"], row["extra_info"])
        for row, text in zip(parquet, said, strict=True)
    ]
    assert [score(*one) for one in given] == pytest.approx(wanted)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "verl" / "model")
    assert tokenizer.apply_chat_template(parquet[0]["prompt"], tokenize=False, add_generation_prompt=True) == prompts[0]

    ids = torch.tensor([tokenizer(prompts[0])["input_ids"]])
    policy = opened(source, [f"hand_rewards.{name}" for name in NAMES]).method.net.model
    ours, theirs = policy(ids).logits, AutoModelForCausalLM.from_pretrained(tmp_path / "verl" / "model")(ids).logits
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    script = (tmp_path / "verl" / "run.sh").read_text()
    for word in ("rollout.n=2", "clip_ratio_high=0.28", "adv_estimator=grpo", "lora_rank=2", "kl_loss_type=low_var_kl"):
        assert word in script, word
    assert "--rollout.n_samples_per_prompt 2 " in (tmp_path / "openrlhf" / "run.sh").read_text()
    assert "epsilon_high=0.28" in (tmp_path / "trl" / "train.py").read_text()


def test_what_cannot_be_handed_over_is_one_line(trained, tmp_path: Path, capsys) -> None:
    source = trained("model=ppo", "model/peft=none", "model.reward=hand_rewards.short")
    (tmp_path / "there").mkdir()
    for library, run_directory, target, wanted in (
        ("verl", source, "there", "is there already"),
        ("trl", source, "a", "ppo isn't among TRL's trainers; take verl or openrlhf"),
        ("verl", tmp_path / "start", "b", "no run directory with a checkpoint"),
    ):
        assert handed(library, run_directory, tmp_path / target) == 2
        told = capsys.readouterr().err
        assert wanted in told and told.count("\n") == 1, told
    (tmp_path / "a_neighbour.py").write_text("def score(responses):\n    return [0.0] * len(responses)\n")
    source = trained("model=grpo", "model/peft=none", "model.group_size=2", "model.reward=hand_rewards.lonely")
    assert handed("trl", source, tmp_path / "c", ("lonely",)) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert (
        told == "error: hand-over: the reward doesn't run by itself: ModuleNotFoundError: No module named 'a_neighbour'"
    )
    assert not (tmp_path / "a").exists() and not (tmp_path / "c").exists()


def test_parquet_needs_an_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr("alignlab.tools.hand_over.writing.find_spec", lambda name: None)
    assert handed("verl", tmp_path, tmp_path / "a") == 2
    assert "needs the extra: pip install 'alignlab[rlhf]'" in capsys.readouterr().err


def test_chats_become_one_text() -> None:
    assert standalone.text_of([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]) == "a\nb"


@pytest.mark.slow
def test_trl_goes_on(trained, tmp_path: Path) -> None:
    """Two steps of TRL's own trainer in the folder."""
    pytest.importorskip("trl")
    source = trained("model=grpo", "model/peft=none", "model.group_size=2", "model.reward=hand_rewards.short")
    assert handed("trl", source, tmp_path / "trl", ("short",)) == 0
    start = "import alignlab, runpy, sys; sys.path.insert(0, '.'); runpy.run_path('train.py')"  # a CPU's torchvision
    done = subprocess.run(
        [sys.executable, "-c", start], cwd=tmp_path / "trl", capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert list((tmp_path / "trl" / "trained").glob("checkpoint-*"))
