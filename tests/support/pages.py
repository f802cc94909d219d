"""The commands on the pages: README, CONTRIBUTING, docs."""

import re
import shlex
from pathlib import Path

from tiny_run import REPOSITORY

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def commands(page: Path) -> list[list[str]]:
    """The words of the lines of the shell blocks of a page, continuations joined and comments cut."""
    blocks = re.findall(r"^```(?:bash|sh|shell)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


COMMANDS = [(page.name, words) for page in PAGES if page.exists() for words in commands(page)]
