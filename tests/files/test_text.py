"""Lines end where files say so and nowhere else; encodings are understood or named; JSON that loses something is refused."""

import json

from alignlab.files.text import json_lines, kind_of, parse_json, read_lines, read_text

import pytest

NO_LINE_ENDS = "a\u2028b\u2029c\x85d\x0ce\x0bf\x1cg"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_only_line_ends_end_lines(tmp_path, end):
    file = tmp_path / "a.txt"
    file.write_bytes(f"{NO_LINE_ENDS}{end}{end}two{end}".encode())
    assert list(read_lines(file)) == [NO_LINE_ENDS, "", "two"] and read_text(file) == f"{NO_LINE_ENDS}\n\ntwo"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks_are_obeyed(tmp_path, encoding):
    (tmp_path / "a.txt").write_text("é\n二\n", encoding=encoding)
    assert list(read_lines(tmp_path / "a.txt")) == ["é", "二"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("one\ntwo\ncafé".encode("latin-1"), r"data.path=.*a.txt, line 3: byte 0xe9 is no UTF-8; .*Latin-1"),
        ("one\ntwo".encode("utf-16-le"), r"a.txt, line 1: a zero byte.*UTF-16"),
        (b"\xff\xfeo", r"a.txt: begins like UTF-16, but isn't"),
    ],
)
def test_what_is_no_text_is_named(tmp_path, content, message):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        list(read_lines(tmp_path / "a.txt", "data.path"))
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"^input=.*none: there is no such file$"):
        list(read_lines(tmp_path / "none", "input"))
    with pytest.raises(ValueError, match="that is no file"):
        list(read_lines(tmp_path))


def test_json_lines_name_their_line(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"a": NO_LINE_ENDS}, ensure_ascii=False) + "\n\n[1]\n", encoding="utf-8-sig")
    rows = json_lines(file)
    assert next(rows) == (1, f"{file}, line 1", {"a": NO_LINE_ENDS})
    with pytest.raises(
        ValueError, match=r"a.jsonl, line 3: a row must be an object with keys, not a list of 1 .first: the number 1"
    ):
        next(rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1', r"^here: no JSON \(Expecting"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', r"^here: no JSON \(the key 'c' stands there twice\)"),
        ("[" * 100_000, "^here: no JSON .nested too deeply"),
        ("1" * 5000, r"^here: no JSON \(Exceeds the limit"),
    ],
)
def test_what_is_no_json(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse_json(text, "here")
    assert "\n" not in str(caught.value)


def test_kinds_of_values():
    kinds = {kind_of(value) for value in (None, True, 3.5, "", "a\nb", [], ["x"], {}, {"en": 1, "zh": 2})}
    assert kinds == {
        "null",
        "the truth value true",
        "the number 3.5",
        "an empty text",
        r"the text 'a\nb'",
        "an empty list",
        "a list of 1 (first: the text 'x')",
        "an empty object",
        "an object with the keys en, zh",
    }
