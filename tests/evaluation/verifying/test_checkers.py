"""Checkers: right, wrong, and what can't be checked; code runs within limits."""

import time

from alignlab.data.language.verifiable import made
from alignlab.evaluation.verifying.checkers import check, final
from alignlab.evaluation.verifying.reward import correct
from alignlab.evaluation.verifying.sandbox import run_python

import pytest


@pytest.mark.parametrize(
    ("checker", "response", "answer", "wanted"),
    [
        ("exact", " Paris\n", "Paris", 1.0),
        ("exact", "I think.\n#### Paris", ["Rome", "Paris"], 1.0),
        ("exact", "The answer is Paris.", "Paris", 1.0),
        ("exact", r"so \boxed{\frac{1}{2}} holds", r"\frac{1}{2}", 1.0),
        ("exact", "paris", "Paris", 0.0),
        ("number", "2 and 2 make 4, so 1,000.0", "1000", 1.0),
        ("number", "#### $12", 12, 1.0),
        ("number", "the answer is -3, not 3", 3, 0.0),
        ("number", "none at all", 3, 0.0),
        ("regex", "it is 12 km", r"\b12 ?km", 1.0),
        ("regex", "it is 12 miles", r"\b12 ?km", 0.0),
    ],
)
def test_rules(checker: str, response: str, answer: object, wanted: float) -> None:
    assert check(response, answer, checker) == wanted


def test_what_cannot_be_checked() -> None:
    with pytest.raises(ValueError, match="checker=maths is none of exact, number, math"):
        check("1", "1", "maths")
    with pytest.raises(ValueError, match="is no regular expression"):
        check("1", "(", "regex")


def test_expressions() -> None:
    pytest.importorskip("math_verify", reason="needs the extra verifiable")
    assert check(r"so it is $\frac{2}{4}$", r"\frac{1}{2}", "math") == 1.0
    assert check(r"\boxed{0.5}", "1/2", "math") == 1.0
    assert check("$x + 1$", "x + 2", "math") == 0.0


def test_schemas() -> None:
    pytest.importorskip("jsonschema", reason="needs the extra verifiable")
    schema = '{"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}'
    assert check('```json\n{"a": 1}\n```', schema, "json_schema") == 1.0
    assert check('{"a": "x"}', schema, "json_schema") == 0.0 == check("no JSON", schema, "json_schema")
    with pytest.raises(ValueError, match="is no JSON schema"):
        check("{}", '{"type": "thing"}', "json_schema")
    with pytest.raises(ValueError, match="can be used: Unresolvable"):  # nothing is fetched
        check("{}", {"$ref": "http://127.0.0.1:9/schema"}, "json_schema")


def test_tasks_of_reasoning_gym() -> None:
    pytest.importorskip("reasoning_gym", reason="needs the extra verifiable")
    ((place, row),) = made(["leg_counting"], 1, 3)
    assert place == "leg_counting[0]" and row["checker"] == "gym"
    right = row["answer"]["answer"]
    assert correct([""] * 2, [f"It has\n#### {right}", "0.5"], [row["answer"]] * 2, ["gym"] * 2)[0] == 1.0
    assert check("wrong", row["answer"], "gym") < 1.0
    with pytest.raises(ValueError, match="reasoning-gym has no nonsense"):
        list(made(["nonsense"], 1, 0))


@pytest.mark.distributed
def test_code_runs_within_limits() -> None:
    solution = "Here:\n```python\ndef add(a, b):\n    return a + b\n```\nDone."
    assert check(solution, "assert add(1, 2) == 3", "code") == 1.0
    assert check(solution, "assert add(1, 2) == 4", "code") == 0.0
    wrong = {
        "import sys; sys.exit(0)": None,  # before the tests
        "import os; os._exit(0)": "ended before its end",
        "while True: pass": "took longer than 1 s",
        "x = bytearray(2 << 30)": "MemoryError",
        "open('/etc/hostname').read()": "outside the folder",
        "open('/tmp/alignlab-escaped', 'w')": "outside the folder",
        "import os; os.listdir('/etc')": "outside the folder",
        "import os; os.remove('/tmp/x')": "outside the folder",
        "import socket; socket.create_connection(('127.0.0.1', 9))": "socket.",
        "import subprocess; subprocess.run(['true'])": "isn't allowed here",
        "import os; os.fork()": "os.fork isn't allowed",
        "import os; os.system('true')": "os.system isn't allowed",
        "open('big', 'wb').write(b'x' * (2 << 20))": None,
        "1 / 0": "ZeroDivisionError",
    }
    rows = [(code, "assert True") for code in wrong]
    began = time.monotonic()
    assert correct([""] * len(rows), *zip(*rows, strict=True), ["code"] * len(rows)) == [0.0] * len(rows)
    assert time.monotonic() - began < 60
    for code, reason in wrong.items():
        ended = run_python(code, seconds=1.0)
        assert not ended.ok and (reason is None or reason in ended.reason), (code, ended)
    fine = "open('note', 'w').write('a'); import json, math, random, collections; print(input(), open('note').read())"
    assert run_python(fine, stdin="hello\n") == (True, "hello a\n", None)


def test_the_answer_of_a_response() -> None:
    assert final("text") == "text" and final("a #### b #### c") == "c" and final("Answer: 4.") == "4"
