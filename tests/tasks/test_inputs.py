"""What a run is asked, and what is wrong with it."""

import io
import json
from pathlib import Path

from alignlab.prompting.technique import Message
from alignlab.tasks.fields import CAPTIONS, QUERIES, QUESTIONS, TEXTS, Form
from alignlab.tasks.inputs import Item, read_items

import pytest


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_one_prompt() -> None:
    assert read_items(7, None, Terminal()) == [Item("0", "7", {})]


def test_lines_of_a_file_and_of_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\n two \n")
    expected = [Item("0", "one", {}), Item("2", " two ", {})]
    assert read_items(None, str(tmp_path / "a.txt"), Terminal()) == expected
    assert read_items(None, None, io.StringIO("one\n\n two \n")) == expected


def test_objects(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"id": 7, "question": "one", "target": "1"}\n{"text": "two"}\n')
    first, second = read_items(None, str(file), Terminal())
    assert (first.id, first.text, first.fields["target"]) == ("7", "one", "1")
    assert (second.id, second.text) == ("1", "two")


def test_odd_letters_end_no_line(tmp_path: Path) -> None:
    text = "a\u2028b\x85c\x0cd"
    (tmp_path / "a.txt").write_text(f"\ufeff{text}\r\ntwo\n", encoding="utf-8")
    assert read_items(None, str(tmp_path / "a.txt"), Terminal()) == [Item("0", text, {}), Item("1", "two", {})]
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}, ensure_ascii=False), encoding="utf-8")
    assert read_items(None, str(tmp_path / "a.jsonl"), Terminal())[0].text == text
    piped = io.TextIOWrapper(io.BytesIO(f"{text}\n".encode()), encoding="utf-8")
    assert read_items(None, None, piped) == [Item("0", text, {})]
    with pytest.raises(ValueError, match="line 2 of the pipe holds what is no UTF-8 text"):
        read_items(None, None, io.TextIOWrapper(io.BytesIO(b"a\ncaf\xe9\n"), encoding="utf-8"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n{"text"', r"input=.*a.jsonl, line 2: no JSON"),
        ('["a"]', "line 1: a row must be an object"),
        ('{"id": 1, "text": "a"}\n{"text": "b"}', "two lines have the id 1"),
        ('{"text": "a", "text": "b"}', "the key 'text' stands there twice"),
        ("\n", "holds no text"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_items(None, str(tmp_path / "a.jsonl"), Terminal())


SKY, BLUE, WHY = (
    {"role": role, "content": said} for role, said in (("user", "sky?"), ("assistant", "blue"), ("user", "why?"))
)
EARLIER = (Message("user", "sky?"), Message("assistant", "blue"))
TURNS = [{"from": "human", "value": "sky?"}, {"from": "GPT", "value": "blue"}, {"from": "human", "value": "why?"}]


@pytest.mark.parametrize(
    ("form", "row", "wanted"),
    [
        (QUESTIONS, {"messages": [SKY, BLUE, WHY]}, [("0", "why?", EARLIER)]),
        (QUESTIONS, {"messages": [SKY, BLUE], "text": "x"}, [("0", "sky?", ())]),
        (QUESTIONS, {"prompt": [SKY, BLUE, WHY], "completion": "x"}, [("0", "why?", EARLIER)]),
        (QUESTIONS, {"prompt": TURNS}, [("0", "why?", EARLIER)]),
        (QUESTIONS, {"chosen": "2 + 2 = 4", "rejected": "2 + 2 = 5"}, [("0", "2 + 2 =", ())]),
        (QUESTIONS, {"id": 5, "chosen": [SKY, BLUE], "rejected": [SKY, SKY]}, [("5", "sky?", ())]),
        (CAPTIONS, {"image": "a.jpg", "caption": "a dog"}, [("0", "a dog", ())]),
        (CAPTIONS, {"File_Name": "a.jpg", "captions": ["a", "b"]}, [("0.0", "a", ()), ("0.1", "b", ())]),
        (QUERIES, {"image": "a.jpg"}, [("0", "a.jpg", ())]),
        (TEXTS, {"messages": [SKY, BLUE]}, [("0", "blue", ())]),
        (TEXTS, {"prompt": "2 + 2 =", "completion": " 4"}, [("0", " 4", ())]),
        (TEXTS, {"chosen": "a b", "rejected": "a c"}, [("0.chosen", " b", ()), ("0.rejected", " c", ())]),
        (TEXTS, {"prompt": "a"}, [("0", "a", ())]),
    ],
)
def test_rows_of_every_form_that_training_takes(tmp_path: Path, form: Form, row: dict, wanted: list) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    items = read_items(None, str(tmp_path / "a.jsonl"), Terminal(), form)
    assert [(item.id, item.text, item.before) for item in items] == wanted
    if "File_Name" in row:
        assert [item.fields["image"] for item in items] == ["a.jpg", "a.jpg"]


@pytest.mark.parametrize(
    ("form", "row", "error"),
    [
        (QUESTIONS, {"text": 3}, "text is the number 3; it must be text"),
        (QUESTIONS, {"promt": "a"}, "prompt, question, messages, text, only promt; did you mean prompt by promt?"),
        (QUESTIONS, {"prompt": " "}, "prompt is empty"),
        (QUESTIONS, {"prompt": []}, "prompt is an empty list"),
        (QUESTIONS, {"prompt": [SKY, BLUE]}, "prompt ends with a turn of the assistant: nothing is asked"),
        (QUESTIONS, {"messages": [BLUE]}, "only a turn of the assistant: nothing to answer"),
        (QUESTIONS, {"chosen": "a", "rejected": "b"}, "what chosen and rejected begin with is empty"),
        (QUESTIONS, {}, "only nothing"),
        (CAPTIONS, {"image": "a.jpg", "captoin": "x"}, "only image, captoin; did you mean caption by captoin?"),
        (CAPTIONS, {"image": "a.jpg", "caption": ""}, "has none of the fields caption"),
        (CAPTIONS, {"image": 3, "caption": "a"}, "image is the number 3"),
        (QUERIES, {"imgae": "a.jpg"}, "did you mean image by imgae?"),
        (TEXTS, {"completion": ""}, "the text is empty"),
        (TEXTS, {"txt": "a"}, "did you mean text by txt?"),
        (TEXTS, {"messages": [SKY]}, "without a turn of the assistant"),
    ],
)
def test_a_row_without_a_usable_field_is_an_item_with_an_error(
    tmp_path: Path, form: Form, row: dict, error: str
) -> None:
    good = json.dumps({"text": "good", "caption": "good"})
    (tmp_path / "a.jsonl").write_text(f"{good}\n{json.dumps(row)}\n{good}\n")
    items = read_items(None, str(tmp_path / "a.jsonl"), Terminal(), form)
    assert [item.text for item in items] == ["good", "", "good"] and items[0].error is items[2].error is None
    assert f"{tmp_path}/a.jsonl, line 2: " in items[1].error and error in items[1].error


def test_fields_that_look_like_known_ones_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "traget": "4", "note": "x", "prompt": null}\n' * 2)
    read_items(None, str(tmp_path / "a.jsonl"), Terminal())
    assert [record.getMessage() for record in caplog.records] == [
        f"input={tmp_path}/a.jsonl: nothing reads the field traget; did you mean target?"
    ]


def test_lists_in_json(tmp_path: Path) -> None:
    """As lists of pictures may be; a .json file with an object a line is read as ever."""
    rows = [{"image": "a.jpg", "caption": "a"}, {"image": "b.jpg"}]
    for text in (json.dumps(rows, indent=1), "\n".join(map(json.dumps, rows))):
        (tmp_path / "a.json").write_text(text)
        first, second = read_items(None, str(tmp_path / "a.json"), Terminal(), CAPTIONS)
        assert (first.id, first.text, second.id) == ("0", "a", "1") and "has none of the fields caption" in second.error
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(ValueError, match="row 1: a row must be an object with keys, not the number 1"):
        read_items(None, str(tmp_path / "a.json"), Terminal())


def test_tables(tmp_path: Path) -> None:
    """A .csv was read as a text a line, its header too."""
    (tmp_path / "a.csv").write_text('id,Prompt,target\nx,"2 + 2, please",4\ny,,5\n')
    first, second = read_items(None, str(tmp_path / "a.csv"), Terminal())
    assert (first.id, first.text, first.fields["target"]) == ("x", "2 + 2, please", "4")
    assert second.id == "y" and "line 3: has none of the fields prompt" in second.error
    (tmp_path / "a.csv").write_text("a dog\na cat\n")
    with pytest.raises(
        ValueError, match=r"line 1: the header reads 'a dog'; it must name one of .*\(a text a line: .txt\)"
    ):
        read_items(None, str(tmp_path / "a.csv"), Terminal())


def test_nothing_or_too_much() -> None:
    with pytest.raises(ValueError, match="nothing to work on"):
        read_items(None, None, Terminal())
    with pytest.raises(ValueError, match="the pipe holds no text"):
        read_items(None, None, io.StringIO(""))
    with pytest.raises(ValueError, match=r"input=nowhere\.txt: there is no such file"):
        read_items(None, "nowhere.txt", Terminal())
    with pytest.raises(ValueError, match="both set"):
        read_items("a", "b", Terminal())
