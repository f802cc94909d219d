"""The README's commands exist: targets of the Makefile, command lines that compose, sub-commands that parse."""

import re
from collections.abc import Callable
from pathlib import Path

from alignlab.configs import check as config
from alignlab.configs.command_line import demo_arguments
from alignlab.runs import chain, kinds
from pages import COMMANDS
from tiny_run import REPOSITORY

import pytest
from omegaconf import DictConfig


@pytest.mark.parametrize(
    ("page", "words"), COMMANDS, ids=[f"{page}: {' '.join(words)[:60]}" for page, words in COMMANDS]
)
def test_command(composed: Callable[..., DictConfig], page: str, words: list[str]) -> None:
    program, *rest = [word for word in words if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    program = Path(program).name
    if program in ("srun", "torchrun"):  # what they start, as they do
        rest = rest[rest.index("train.py") :]
        program = "python"
    if program == "make":
        targets = re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in rest if "=" not in word} <= set(targets)
    elif program == "python" and rest[0] == "train.py":
        check(composed, filled(rest[1:]), "train")
    elif program == "python" and rest[0] == "infer.py":
        check(composed, filled(rest[1:]), "infer")
    elif program in ("python", "pytest"):
        for word in rest:
            assert not word.endswith(".py") or (REPOSITORY / word).exists(), f"{page}: {word} is not there"
    elif program == "alignlab" and rest[0] in ("train", "infer"):
        if not any(word.startswith("plugins=") for word in rest):  # those are composed by tests/programs/test_new.py
            check(composed, filled(rest[1:]), rest[0])
    elif program == "alignlab" and rest[0] == "demo":
        check(composed, filled(demo_arguments(rest[1:])), "infer")
    elif program == "alignlab":
        from alignlab.cli import parser

        parser().parse_args(rest)
    else:
        assert program in ("pip", "git", "cd", "source", "tensorboard", "pre-commit"), f"{page}: who knows {program}?"


def filled(words: list[str]) -> list[str]:
    """Something for every `<placeholder>`, so that its key is looked at; what a run directory would hold is not."""
    return [re.sub(r"<[^>]*>", "something", word) for word in words if not word.startswith("resume=")]


def check(composed: Callable[..., DictConfig], words: list[str], program: str) -> None:
    words = words[: words.index("--cfg")] if "--cfg" in words else words
    kind, words = kinds.typed(program, words)
    overrides = [word for word in words if not word.startswith("-")]
    if any(word in ("-m", "--multirun") for word in words):
        overrides = [word.split(",")[0] for word in overrides]  # the first of each list
    try:
        cfg = composed(*overrides, program=kind.name)
        if kind is kinds.CHAIN:
            chain.checked(cfg, Path("outputs/x"))
        else:
            config.check(cfg, root=kind.root)
    except config.ConfigError as error:
        unexpected = [problem for problem in error.problems if "has no value yet (???)" not in problem]
        if unexpected:
            raise


def test_there_is_something_to_check() -> None:
    assert ["make", "train"] in [words for _, words in COMMANDS]
