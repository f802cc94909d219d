"""docs/trust.md: every promise names the test that holds it, and that test is there."""

import ast
import re
from functools import cache

from tiny_run import REPOSITORY

import pytest

PAGE = REPOSITORY / "docs" / "trust.md"
ROWS = [
    line
    for line in PAGE.read_text(encoding="utf-8").split("\n")
    if line.startswith("|") and not line.startswith(("| promise", "|---"))
]


@cache
def names_in(file: str) -> set[str]:
    tree = ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:60])
def test_a_promise_has_its_test(row: str) -> None:
    *_, held_by, _ = row.split("|")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", held_by)
    assert named, "a promise without a test is none"
    for file, name in named:
        assert (REPOSITORY / file).is_file(), f"there is no {file}"
        assert name.startswith("test_") and name in names_in(file), f"{file} has no {name}"
