"""Hundreds of mutated rows from a seed: each is used, or dropped and counted, or refused in one line that names file and row."""

import copy
import json
import logging
import random
import re

from alignlab.data.language.modules import LanguageDataModule
from alignlab.data.language.own_rows import OwnRows
from alignlab.data.language.tokenizer import built_in_tokenizer

import pytest

pytestmark = pytest.mark.slow

TEMPLATE = (
    "{% for m in messages %}{% if m['role'] not in ('user', 'assistant') %}{{ raise_exception('no such role') }}{% endif %}"
    "<{{ m['role'] }}>{{ m['content'] | trim }}<eos>\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def turn(role, content):
    return {"role": role, "content": content}


ASK, SAY, NO = turn("user", "which colour has the sky?"), turn("assistant", "it is blue"), turn("assistant", "green")
GOOD = {
    "sft": [
        {"messages": [ASK, SAY]},
        {"prompt": "a b", "completion": " c d"},
        {"text": "a whole text"},
        {"prompt": [ASK], "response": [SAY]},
        {"messages": [turn("system", "be brief"), ASK, SAY, turn("user", "why?"), SAY]},
    ],
    "preference": [
        {"prompt": [ASK], "chosen": [ASK, SAY], "rejected": [ASK, NO], "margin": 1, "share": 0.75},
        {"chosen": [ASK, SAY], "rejected": [ASK, NO]},
        {"prompt": "which?", "chosen": " this", "rejected": " that"},
        {"prompt": "which?", "chosen": [SAY], "rejected": [NO]},
    ],
    "prompt": [{"prompt": [ASK]}, {"prompt": "say a word"}, {"messages": [ASK, SAY]}],
}
VALUES = [
    None, True, 0, -3, 1e400, float("nan"), "", " ", "\n", "\n\nanswer", "answer  ", "<eos>", "<bos>a<eos>\n<user>b", "word " * 60, "\u2028",
    "\ud800",
    "\U00108001 <eos>", "é日本\U0001f600", [], {}, [[]], [None], [ASK], [SAY], [ASK, ASK], [turn("tool", "x")], [turn("", "")], [turn("user", None)],
    [turn(3, "x")],
    [{"from": "human", "value": "hi"}], [{"content": "x"}], [ASK, turn("assistant", "")], [turn("system", "s"), ASK, SAY], "1", [1.5], {"a": "b"},
]  # fmt: skip


def mutated(row, draw):
    """A row with one to three of its parts replaced, dropped, doubled, renamed or moved."""
    row = copy.deepcopy(row)
    for _ in range(draw.randint(1, 3)):
        key = draw.choice(list(row) or ["text"])
        kind = draw.randrange(6)
        if kind == 0:
            row[key] = copy.deepcopy(draw.choice(VALUES))
        elif kind == 1:
            row.pop(key, None)
        elif kind == 2:
            row[
                draw.choice(["prompt", "chosen", "rejected", "messages", "text", "completion", "share", "margin", "x"])
            ] = copy.deepcopy(draw.choice(VALUES))
        elif kind == 3 and isinstance(row.get(key), list) and row[key]:
            row[key] = draw.choice(
                [row[key][::-1], row[key] * 2, row[key][:-1], [*row[key], dict(draw.choice([ASK, SAY, NO]))]]
            )
        elif kind == 4 and isinstance(row.get(key), list) and row[key] and isinstance(row[key][-1], dict):
            row[key][-1][draw.choice(["role", "content", "value", "name"])] = copy.deepcopy(draw.choice(VALUES))
        else:
            row[draw.choice(["Prompt", "choosen", "text "])] = row.pop(key, "x")
    return row


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("tokenizer"), built_in_tokenizer(600)
    found.chat_template = TEMPLATE
    found.save_pretrained(folder)
    (folder / "config.json").write_text("{}")
    return str(folder)


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("kind", list(GOOD))
def test_every_mutated_row_is_used_or_counted_or_named(kind, part, tokenizer, tmp_path, caplog):
    draw, outcomes = random.Random(f"{kind} {part}"), {"used": 0, "refused": 0}
    for number in range(50):
        good = [draw.choice(GOOD[kind]) for _ in range(3)]
        bad, place = mutated(draw.choice(GOOD[kind]), draw), draw.randrange(4)
        rows = [*good[:place], bad, *good[place:]]
        file = tmp_path / f"{number}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        caplog.clear()
        module = LanguageDataModule(
            OwnRows, path=str(file), val_path=str(file), kind=kind, tokenizer=tokenizer, max_length=48, batch_size=1
        )
        try:
            with caplog.at_level(logging.WARNING):
                module.setup()
                batches = list(module.val_dataloader())
        except ValueError as error:
            message = str(error)
            assert "\n" not in message and str(file) in message and re.search(rf"(:|line ){place + 1}: ", message), (
                bad,
                message,
            )
            outcomes["refused"] += 1
            continue
        dropped = (
            sum(int(count) for count in re.findall(r"(\d+) of \d+ (?:examples|pairs)", caplog.text)) // 2
        )  # train and val
        sizes = {"sft": lambda b: len(b.ids), "preference": lambda b: len(b.first), "prompt": lambda b: len(b.ids)}
        assert sum(map(sizes[kind], batches)) + dropped == len(rows), (bad, caplog.text)
        outcomes["used"] += 1
    assert min(outcomes.values()) > 2, outcomes
