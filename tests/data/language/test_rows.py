"""The usual formats of users' rows; problems name their place."""

import json

from alignlab.data.language.rows import (
    Example,
    Preference,
    common_start,
    example,
    normalised,
    preference,
    prompt,
    read_hub,
    read_jsonl,
)

import pytest

USER, YES, NO = (
    {"role": r, "content": c} for r, c in (("user", "sky?"), ("assistant", "blue"), ("assistant", "green"))
)


def test_formats_of_examples():
    assert example({"text": "a"}) == Example("", "a")
    assert example({"prompt": "a", "completion": "b"}) == example({"prompt": "a", "response": "b"}) == Example("a", "b")
    assert example({"messages": [USER, YES]}) == Example([USER], [YES])
    turns = [{"from": "human", "value": "sky?"}, {"from": "gpt", "value": "blue"}]
    assert example({"messages": turns}) == Example([USER], [YES])


def test_formats_of_pairs():
    wanted = Preference("p", " a", " b")
    assert preference({"prompt": "p", "chosen": " a", "rejected": " b"}) == wanted
    assert preference({"chosen": "p a", "rejected": "p b"}) == wanted
    assert preference({"chosen": [USER, YES], "rejected": [USER, NO]}) == Preference([USER], [YES], [NO])
    assert preference({"prompt": "sky?", "chosen": [YES], "rejected": [NO]}) == Preference([USER], [YES], [NO])
    assert preference({"prompt": "", "chosen": "a", "rejected": "b", "share": 0.7, "margin": 2}).share == 0.7
    assert preference({"prompt": None, "chosen": "p a", "rejected": "p b", "share": None, "margin": None}) == wanted
    assert example({"messages": None, "prompt": None, "completion": None, "text": "a"}) == Example("", "a")
    assert example({"messages": [USER | {"role": "User "}, YES | {"role": "GPT"}]}) == Example([USER], [YES])


def test_the_implicit_prompt_is_that_of_trl_where_trl_has_one():
    extract = pytest.importorskip("trl.data_utils").extract_prompt
    for chosen, rejected in (
        ("the sky is blue", "the sky is green"),
        ("a b", "a c"),
        ("x", "y"),
        ([USER, YES], [USER, NO]),
    ):
        found = extract({"chosen": chosen, "rejected": rejected})
        assert chosen[: common_start(chosen, rejected)] == found["prompt"]
    assert common_start("ab", "abc") == 2  # trl: 1


def test_columns_that_look_like_known_ones_are_named_once(caplog):
    rows = [(f"line {n}", {"prompt": "p", "chosen": "a", "rejected": "b", "sahre": 0.7, "note": 1}) for n in (1, 2)]
    assert [pair.share for pair in normalised(rows, preference)] == [1.0, 1.0]
    assert [record.getMessage() for record in caplog.records] == [
        "line 1: nothing reads the column sahre; did you mean share?"
    ]


def test_prompts():
    assert prompt({"prompt": "a"}).prompt == "a"
    assert prompt({"messages": [USER, YES]}).prompt == prompt({"messages": [USER]}).prompt == [USER]


@pytest.mark.parametrize(
    ("row", "read", "message"),
    [
        (
            {"txt": "a", "promt": "b"},
            example,
            "no column messages, completion, response or text; there are txt, promt; did you mean text by txt.; did you mean prompt by promt",
        ),
        ({"text": 3}, example, "text is the number 3; it must be text or a list of messages"),
        ({"text": None, "prompt": "a"}, example, r"no column messages, .*; there are text \(null\), prompt"),
        ({"messages": "hi"}, example, "messages is the text 'hi'; it must be a list of messages with role and content"),
        ({"messages": []}, prompt, "messages is an empty list; it must be a list"),
        ({"messages": [YES]}, prompt, "only a turn of the assistant"),
        ({"messages": [USER, "hi"]}, example, r"messages\[1\] is the text 'hi'; it must be a message"),
        (
            {"messages": [{"rol": "user", "content": "a"}]},
            example,
            r"messages\[0\]: role is null; .*there are rol, content",
        ),
        (
            {"messages": [USER, YES | {"content": [{"type": "text"}]}]},
            example,
            r"messages\[1\]: content is a list of 1",
        ),
        ({"messages": [USER, YES | {"content": None}]}, example, r"messages\[1\]: content is null; it must be text"),
        ({"text": "a\ud800"}, example, r"text holds half a letter .*'\\ud800' at 1"),
        ({"prompt": {"a": 1}}, prompt, "prompt is an object with the keys a; it must be text or"),
        (
            {"chosen": "a", "rejected": "b", "margin": [1]},
            preference,
            r"margin is a list of 1 .*; it must be a finite number",
        ),
        (
            {"chosen": "a", "rejected": "b", "share": "0.5"},
            preference,
            "share is the text '0.5'; it must be a finite number",
        ),
        ({"chosen": "a", "rejected": "b", "margin": float("inf")}, preference, "margin is the number inf"),
        ({"chosen": "a", "rejected": "b", "margin": 10**400}, preference, "margin is the number 1000"),
        ({"chosen": "a", "rejected": None}, preference, r"no column rejected; there are chosen, rejected \(null\)"),
        ({"messages": [USER]}, example, "without a turn of the assistant"),
        ({"chosen": "a"}, preference, "no column rejected"),
        ({"chosen": "a", "rejected": [NO]}, preference, "both be plain text or both be chats"),
        ({"chosen": "a", "rejected": "b", "share": 2}, preference, "share is 2.0"),
    ],
)
def test_bad_rows_name_their_place(row, read, message):
    with pytest.raises(ValueError, match=message) as caught:
        normalised([("f.jsonl:7", row)], read)
    assert str(caught.value).startswith("f.jsonl:7: ")


def test_files(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"text": "a\u2028b"}, ensure_ascii=False) + "\n\n" + "{oops\n")
    rows = read_jsonl(file)
    assert next(rows) == (f"path={file}, line 1", {"text": "a\u2028b"})
    with pytest.raises(ValueError, match=r"path=.*rows\.jsonl, line 3: no JSON"):
        next(rows)
    with pytest.raises(ValueError, match="there is no such file"):
        next(read_jsonl(tmp_path / "none.jsonl"))


def test_data_sets_of_the_hub_format(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    places, rows = zip(*read_hub(str(tmp_path / "set"), "train"), strict=True)
    assert [example(row).response for row in rows] == ["a", "b"] and places[1].endswith("[1]")
    with pytest.raises(ValueError, match=r"path="):
        read_hub(str(tmp_path / "nothing"), "train")
