"""What a run is asked, and what is wrong with it."""

import io
import json
from pathlib import Path

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
    assert read_items(None, str(file), Terminal()) == [Item("7", "one", {"target": "1"}), Item("1", "two", {})]


def test_odd_letters_end_no_line(tmp_path: Path) -> None:
    text = "a\u2028b\x85c\x0cd"
    (tmp_path / "a.txt").write_text(f"\ufeff{text}\r\ntwo\n", encoding="utf-8")
    assert read_items(None, str(tmp_path / "a.txt"), Terminal()) == [Item("0", text, {}), Item("1", "two", {})]
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}, ensure_ascii=False), encoding="utf-8")
    assert read_items(None, str(tmp_path / "a.jsonl"), Terminal()) == [Item("0", text, {})]
    piped = io.TextIOWrapper(io.BytesIO(f"{text}\n".encode()), encoding="utf-8")
    assert read_items(None, None, piped) == [Item("0", text, {})]
    with pytest.raises(ValueError, match="the pipe holds what is no UTF-8 text"):
        read_items(None, None, io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), encoding="utf-8"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n{"text"', r"input=.*a.jsonl, line 2: no JSON"),
        ('["a"]', "line 1: a row must be an object"),
        ('{"id": 1, "text": "a"}\n{"text": "b"}', "two lines have the id 1"),
        ('{"text": 3}', "line 1: text is the number 3; it must be text"),
        ('{"txt": "a"}', "line 1: has none of the fields prompt, question, text, only txt"),
        ('{"text": "a", "text": "b"}', "the key 'text' stands there twice"),
        ("\n", "holds no text"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_items(None, str(tmp_path / "a.jsonl"), Terminal())


def test_nothing_or_too_much() -> None:
    with pytest.raises(ValueError, match="nothing to work on"):
        read_items(None, None, Terminal())
    with pytest.raises(ValueError, match="the pipe holds no text"):
        read_items(None, None, io.StringIO(""))
    with pytest.raises(ValueError, match=r"input=nowhere\.txt: there is no such file"):
        read_items(None, "nowhere.txt", Terminal())
    with pytest.raises(ValueError, match="both set"):
        read_items("a", "b", Terminal())
