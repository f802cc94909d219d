"""Does GRPO find what a rule rewards? The three commands of docs/grpo.md, as typed, with a shorter SFT."""

import json
from pathlib import Path

from running import result_of, start
from tiny_run import REPOSITORY

import pytest


def done(folder: Path, *words: str, program: str = "train.py") -> dict:
    """The result of a command as typed."""
    (folder.parent).mkdir(exist_ok=True)
    process = start(str(REPOSITORY / program), *words, f"hydra.run.dir={folder}", cwd=folder.parent)
    assert process.wait(timeout=1200) == 0, (folder.parent / "console.log").read_text()[-2000:]
    return result_of(folder)["metrics"]


@pytest.mark.slow
def test_grpo_learns_what_a_rule_rewards(tmp_path: Path) -> None:
    sft, solve, run = tmp_path / "sft", tmp_path / "solve", tmp_path / "run"
    done(sft, "experiment=rlhf_movies_sft", "trainer.max_steps=200")
    sampled = ("sampling.temperature=1", "sampling.top_p=1", "sampling.max_new_tokens=16")
    film = ("task=solve", f"model={sft}", "task.tasks=[named_films]", "task.size=600", "sampling=varied", *sampled)
    start_model = done(solve, *film, program="infer.py")
    rows = [json.loads(line) for line in (solve / "solvable.jsonl").read_text().splitlines()]
    assert len(rows) == start_model["kept"] >= 60 and all(0.2 <= row["solved"] <= 0.8 for row in rows)
    before = sum(row["solved"] for row in rows) / len(rows)
    metrics = done(run, "experiment=sanity_grpo", f"model.net.path={sft}", f"data.path={solve / 'solvable.jsonl'}")
    assert before < 0.5 and metrics["val/score"] > 0.9  # held-out prompts
    lines = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    column = lines[0].index("objective/score")
    scores = [float(line[column]) for line in lines[1:] if line[column]]
    assert sum(scores[-10:]) / 10 > 0.9  # training prompts
