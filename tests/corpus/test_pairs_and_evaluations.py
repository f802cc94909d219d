"""Planted faults of preference pairs and pieces of evaluations: each is found, and nothing else."""

import json
import random
from pathlib import Path

from alignlab.corpus.cleaning import clean, plan_of
from alignlab.corpus.settings import chain_of
from planted_texts import HAN, english_words

import pytest

WORDS = english_words()


def sentence(rng: random.Random, length: int = 12) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(length))


def run(tmp_path: Path, made: list[dict], *words: str, evaluation: list[Path] = (), against: list[Path] = ()) -> tuple:
    """Report, numbers that are kept, reasons by number."""
    file = tmp_path / "in.jsonl"
    file.write_text("".join(json.dumps({"id": n, **row}, ensure_ascii=False) + "\n" for n, row in enumerate(made)))
    plan = plan_of([file], against, chain=lambda kind: chain_of(kind, words=words, evaluation=evaluation))
    report = clean(plan, tmp_path / "out")
    kept = [json.loads(line)["id"] for line in (tmp_path / "out" / "data" / "in.jsonl").read_text().splitlines()]
    lost = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]
    return report, kept, {json.loads(row["row"])["id"]: (row["step"], row["reason"], row["evidence"]) for row in lost}


def test_faults_of_pairs(tmp_path: Path) -> None:
    rng = random.Random(0)
    made = [{"prompt": sentence(rng), "chosen": sentence(rng, 14), "rejected": sentence(rng, 9)} for _ in range(40)]
    made[3]["rejected"] = made[3]["chosen"] + " "
    made[5]["rejected"] = ""
    made[7] = {**made[6], "chosen": made[6]["rejected"], "rejected": made[6]["chosen"]}
    made[8] = {**made[9]}
    made[11] = {"prompt": "p" * 30, "chosen": "x" * 300 + "good", "rejected": "x" * 300 + "bad"}
    made[13]["split"] = "test"
    made[14]["prompt"] = made[13]["prompt"]
    report, kept, lost = run(tmp_path, made, "pairs.tokenizer=bytes", "pairs.max_length=300")
    assert {number: reason for number, (_, reason, _) in lost.items()} == {
        3: "equal", 5: "no response", 6: "contradictory", 7: "contradictory", 9: "duplicate",
        11: "equal in 300 tokens", 14: "prompt in both splits",
    }  # fmt: skip
    assert lost[6][2] == {"of": "in.jsonl, line 8"} and lost[14][2] == {"of": "in.jsonl, line 14"}
    assert kept == [n for n in range(40) if n not in lost]
    bias = report["length bias"]
    longer = sum(len(made[n]["chosen"]) > len(made[n]["rejected"]) for n in kept)
    assert bias["pairs"] == 33 and bias["share"] == pytest.approx(longer / 33, abs=1e-3)
    low, high = bias["interval"]
    assert low < longer / 33 <= high


def test_held_out_pairs_keep_their_prompts_from_training(tmp_path: Path) -> None:
    rng = random.Random(0)
    made = [{"prompt": sentence(rng), "chosen": sentence(rng), "rejected": sentence(rng)} for _ in range(6)]
    held = tmp_path / "held.jsonl"
    held.write_text(json.dumps({**made[2], "chosen": "another answer"}) + "\n")
    _, kept, lost = run(tmp_path, made, against=[held])
    assert kept == [0, 1, 3, 4, 5] and lost[2][:2] == ("pairs", "prompt in both splits")


def test_chats_are_read_and_masked_message_by_message(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "I am jo@example.com"}, {"role": "assistant", "content": "Hello, Jo."}]
    made = [{"messages": chat}, {"messages": chat}, {"prompt": "Hi", "completion": "Call 617-542-5942", "tags": ["a"]}]
    _, kept, lost = run(tmp_path, made)
    assert kept == [0, 2] and lost[1][0] == "exact_dup"
    rows = [json.loads(line) for line in (tmp_path / "out" / "data" / "in.jsonl").read_text().splitlines()]
    assert rows[0]["messages"] == [{"role": "user", "content": "I am <email>"}, chat[1]]
    assert rows[1] == {"id": 2, "prompt": "Hi", "completion": "Call <phone>", "tags": ["a"]}


@pytest.mark.parametrize("form", ["jsonl", "json", "txt", "csv"])
def test_every_planted_item_is_found(tmp_path: Path, form: str) -> None:
    """Whole items, items with a piece of 13 words, short items, Chinese ones; changed case and punctuation."""
    rng = random.Random(0)
    long = [sentence(rng, 30) for _ in range(10)]
    short = [sentence(rng, 8) for _ in range(10)]
    chinese = ["".join(rng.choice(HAN) for _ in range(20)) for _ in range(10)]
    items = [*long, *short, *chinese, "two words"]
    file = tmp_path / f"eval.{form}"
    texts = {
        "jsonl": "".join(json.dumps({"question": item, "answer": 3}, ensure_ascii=False) + "\n" for item in items),
        "json": json.dumps([{"question": item} for item in items], ensure_ascii=False),
        "txt": "\n".join(items),
        "csv": "\n".join(["question", *items]),
    }
    file.write_text(texts[form], encoding="utf-8")
    made = [{"text": f"{sentence(rng, 40)} the of and"} for _ in range(60)]
    for number, item in enumerate(items[:-1]):
        words = item.split()
        piece = " ".join(words[5:18]) if number < 5 else item
        made[2 * number]["text"] += f". {piece.upper().replace(' ', ', ', 3)}! {sentence(rng, 20)}"
    near = " ".join(long[0].split()[5:17])  # 12 words are one too few
    made[1]["text"] += f" {near} xyzzy"
    report, kept, lost = run(tmp_path, made, "quality.preset=chat", "pii.action=report", evaluation=[file])
    assert sorted(lost) == [2 * number for number in range(30)]
    assert {step for step, _, _ in lost.values()} == {"decontam"}
    assert kept == [n for n in range(60) if n not in lost]
    assert report["evaluation"]["hit"] == 30 and report["evaluation"]["items"] == 31
    assert report["evaluation"]["too short"] == 1
    line = 3 if form == "csv" else 2
    assert lost[2][2]["items"] == [f"eval.{form}, line {line}"]
    assert lost[2][2]["run"].startswith(" ".join(long[1].split()[5:7]).split()[0])


def test_an_evaluation_that_cannot_be_read_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"decontam\.decontam\.files=.*nothing\.jsonl: there is no such file"):
        chain_of("text", evaluation=[tmp_path / "nothing.jsonl"])
    with pytest.raises(ValueError, match="files names no evaluation: --evaluation FILE"):
        chain_of("text", ["schema", "decontam"])
