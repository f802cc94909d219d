"""Prompts, answers and whole dialogues in every usual split: the question stands once."""

import json
import logging

from alignlab.data.language.dialogues import answers, without_prompts
from alignlab.data.language.modules import LanguageDataModule
from alignlab.data.language.own_rows import OwnRows
from alignlab.data.language.rows import Example, Preference, example, preference
from alignlab.data.language.tokenizer import built_in_tokenizer

import pytest

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def turn(role, content):
    return {"role": role, "content": content}


SYSTEM, USER, YES, NO = (
    turn("system", "be brief"),
    turn("user", "sky?"),
    turn("assistant", "blue"),
    turn("assistant", "green"),
)
FIRST, OK = turn("user", "hi"), turn("assistant", "hello")


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected", "wanted"),
    [
        ([USER], [USER, YES], [USER, NO], [USER]),
        ("sky?", [USER, YES], [USER, NO], [USER]),
        ([USER], [YES], [NO], [USER]),
        ([USER], "blue", "green", [USER]),
        ("sky?", [turn("user", "sky?\n"), YES], [USER, NO], [USER]),
        ([SYSTEM, USER], [SYSTEM, USER, YES], [SYSTEM, USER, NO], [SYSTEM, USER]),
        ([SYSTEM, USER], [USER, YES], [USER, NO], [SYSTEM, USER]),
        ([USER], [SYSTEM, USER, YES], [SYSTEM, USER, NO], [SYSTEM, USER]),
        ("sky?", [SYSTEM, USER, YES], [SYSTEM, USER, NO], [SYSTEM, USER]),
        ([FIRST, OK, USER], [USER, YES], [USER, NO], [FIRST, OK, USER]),
        ([FIRST, OK, USER], [FIRST, OK, USER, YES], [FIRST, OK, USER, NO], [FIRST, OK, USER]),
        ([FIRST, OK], [USER, YES], [USER, NO], [FIRST, OK]),
    ],
)
def test_the_question_stands_once_however_a_row_splits_the_dialogue(prompt, chosen, rejected, wanted):
    found = preference({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    assert (found.prompt + found.chosen, found.prompt + found.rejected) == (
        wanted + ([USER] if wanted == [FIRST, OK] else []) + [YES],
        wanted + ([USER] if wanted == [FIRST, OK] else []) + [NO],
    )
    assert found.prompt == wanted


def test_examples_to_learn_are_split_alike():
    assert example({"prompt": [USER], "completion": [USER, YES]}) == Example([USER], [YES])
    assert example({"prompt": "sky?", "completion": [YES]}) == example({"prompt": [USER], "response": "blue"})


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected", "message"),
    [
        ([USER], [FIRST, YES], [FIRST, NO], "chosen is a whole dialogue, but of another prompt: it begins with 'hi'"),
        ("sky?", [USER, YES], [FIRST, NO], "rejected is a whole dialogue, but of another prompt"),
        ([USER], [SYSTEM, USER, YES], [USER, NO], "chosen and rejected begin with different system turns"),
    ],
)
def test_dialogues_of_another_prompt_are_refused(prompt, chosen, rejected, message):
    with pytest.raises(ValueError, match=message):
        preference({"prompt": prompt, "chosen": chosen, "rejected": rejected})


def test_the_rendered_pair_holds_the_question_once(tmp_path):
    tokenizer = built_in_tokenizer(600)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({"prompt": [USER], "chosen": [USER, YES], "rejected": [USER, NO]}) + "\n")
    module = LanguageDataModule(
        OwnRows,
        path=str(file),
        val_path=str(file),
        kind="preference",
        batch_size=1,
        tokenizer=str(tmp_path),
        max_length=64,
    )
    module.setup()
    batch = next(iter(module.train_dataloader()))
    first, second = (
        tokenizer.decode(ids[mask]).replace(" ", "") for ids, mask in zip(batch.ids, batch.mask, strict=True)
    )
    assert first == "<user>sky?<eos><assistant>blue<eos>" and second == "<user>sky?<eos><assistant>green<eos>"


def test_plain_texts_are_whole_where_every_row_of_the_file_says_so(caplog):
    rows = [Preference("Q: sky?\nA:", "Q: sky?\nA: blue", "Q: sky?\nA: green"), Preference("Q: x", "Q: x y", "Q: x")]
    with caplog.at_level(logging.WARNING):
        found = without_prompts(rows, ("chosen", "rejected"), "f.jsonl")
    assert found == [Preference("Q: sky?\nA:", " blue", " green"), Preference("Q: x", " y", "")]
    assert "f.jsonl: every chosen and rejected begins with its prompt" in caplog.text
    echo = [*rows, Preference("the", "the end", " other")]  # an answer may begin with its prompt's words
    assert without_prompts(echo, ("chosen", "rejected"), "f.jsonl") == echo
    assert answers("a", {"chosen": "a b"}) == ("a", ["a b"])
