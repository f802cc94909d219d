"""Prompts with answers: columns, checkers, splits, shares that were measured; and their reward in a config."""

import json
from pathlib import Path

from alignlab.configs.command_line import arguments
from alignlab.configs.explain import composed
from alignlab.data.language.modules import LanguageDataModule
from alignlab.data.language.verifiable import VerifiableRows
from alignlab.runs.kinds import TRAIN

import pytest
import torch


def file_of(folder: Path, rows: list[dict]) -> str:
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "problems.jsonl")


def module(path: str | None, **settings) -> LanguageDataModule:
    return LanguageDataModule(VerifiableRows, path=path, vocab_size=300, max_length=64, batch_size=4, **settings)


def test_rows_reach_the_batch(tmp_path: Path) -> None:
    rows = [{"question": f"{n} + 1 =", "answer": str(n + 1), "level": n % 3, "solved": n / 39} for n in range(40)]
    rows[7]["checker"] = "number"
    path = file_of(tmp_path, rows)
    data = module(path, val_share=0.2, instruction=" ?")
    data.setup()
    batch = data.rows["train"].__getitems__([0, 1, 2, 3])
    for content, row in zip(batch.content, batch.rows, strict=True):
        number = int(content.split()[0])
        assert content == f"{number} + 1 = ?" and row["answer"] == str(number + 1) and row["level"] == number % 3
        assert row["checker"] == ("number" if number == 7 else "exact")
    splits = {split: {str(c) for c in data.rows[split].contents} for split in ("train", "val")}
    assert not splits["train"] & splits["val"] and len(splits["train"]) + len(splits["val"]) == 40
    again, other = data.further_prompts(3, 1, 5), data.further_prompts(3, 2, 5)
    assert torch.equal(again.index, data.further_prompts(3, 1, 5).index) and not torch.equal(again.index, other.index)
    chosen = module(path, solved=(0.2, 0.8), val_share=0.2)
    chosen.setup()
    kept = [row["solved"] for split in ("train", "val") for row in chosen.rows[split].columns]
    assert kept and min(kept) >= 0.2 and max(kept) <= 0.8


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "1"}, r"problems.jsonl.*1: no column answer, which holds what is right; there are prompt"),
        ({"prompt": "1", "answer": "2", "checker": "maths"}, "checker is 'maths'; it is one of exact, number"),
        ({"answer": "2"}, "no column prompt"),
        (
            {"prompt": "1", "answer": "x()", "checker": "code"},
            "code runs the tests in the row, and checker=exact was chosen",
        ),
    ],
)
def test_wrong_rows(tmp_path: Path, row: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(file_of(tmp_path, [row])).setup()


def test_neither_file_nor_tasks() -> None:
    with pytest.raises(ValueError, match=r"path is not set: name a \.jsonl file, or tasks"):
        module(None)


def test_the_reward_is_that_of_the_data(tmp_path: Path) -> None:
    words = ["model=grpo", "data=verifiable", "data.path=x.jsonl", "model.net.path=y"]
    cfg = TRAIN.checked(composed(arguments(words)), words, tmp_path)
    assert TRAIN.completed(cfg, tmp_path).model.reward == "alignlab.evaluation.verifying.reward.correct"
    cfg = TRAIN.checked(composed(arguments([*words, "model.reward=my.own"])), words, tmp_path)
    assert TRAIN.completed(cfg, tmp_path).model.reward == "my.own"
