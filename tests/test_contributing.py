"""Who adds a method to the house is told what is missing: config, test, page, a line of the README. `make check` installs nothing."""

import re
import shutil
import subprocess
from pathlib import Path

from tiny_run import REPOSITORY

import pytest

# Files of methods/ that methods are made of.
NO_METHODS = {"__init__", "method", "pairs", "step"}


def missing(root: Path) -> list[str]:
    """What methods and configs of models lack, a line each: what, and what it is to be."""
    written = {file.stem for file in (root / "src/alignlab/methods").glob("*.py")} - NO_METHODS
    chosen = {file.stem for file in (root / "conf/model").glob("*.yaml")}
    readme = (root / "README.md").read_text(encoding="utf-8")
    lacking = []
    for name in sorted(chosen - written):
        if (base := preset_of(root / "conf/model" / f"{name}.yaml")) is not None:
            chosen.remove(name)
            page = root / f"docs/{base}.md"
            if f"model={name}" not in (page.read_text(encoding="utf-8") if page.exists() else ""):
                lacking.append(
                    f"{name}: docs/{base}.md doesn't name model={name} (a preset belongs to its method's page)"
                )
    for name in sorted(written | chosen):
        wanted = {f"docs/{name}.md": "what it is, the command, its keys, what it reached"}
        if name in written:
            wanted[f"conf/model/{name}.yaml"] = f"_target_: alignlab.methods.{name}.<Class>, and choices alone"
            wanted[f"tests/methods/test_{name}.py"] = (
                "one step, what validation leaves alone, overfits a batch, a loop without a trainer"
            )
        lacking += [
            f"{name}: there is no {file} ({what})" for file, what in wanted.items() if not (root / file).exists()
        ]
        if f"docs/{name}.md" not in readme:
            lacking.append(
                f"{name}: README.md doesn't link docs/{name}.md (the line of pages, and the table where it has numbers)"
            )
        config = root / "conf/model" / f"{name}.yaml"
        if (
            name in written
            and config.exists()
            and f"alignlab.methods.{name}." not in config.read_text(encoding="utf-8")
        ):
            lacking.append(f"{name}: conf/model/{name}.yaml names no class of alignlab.methods.{name}")
    return lacking


def preset_of(config: Path) -> str | None:
    """The config of the same folder that a config begins with and changes."""
    first = re.search(r"^defaults: \[(\w+), _self_\]", config.read_text(encoding="utf-8"), re.MULTILINE)
    return first[1] if first and config.with_name(f"{first[1]}.yaml").exists() else None


def test_every_method_has_all_that_belongs_to_it() -> None:
    lacking = missing(REPOSITORY)
    assert not lacking, "CONTRIBUTING.md, 'Where does a new X go?':\n" + "\n".join(lacking)


def test_a_new_method_is_told_all_that_it_lacks(tmp_path: Path) -> None:
    for folder in ("conf/model", "src/alignlab/methods", "tests/methods", "docs"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "images"))
    shutil.copy(REPOSITORY / "README.md", tmp_path)
    (tmp_path / "src/alignlab/methods/barlow.py").write_text('"""Barlow twins."""\n')
    (tmp_path / "conf/model/siglip2.yaml").write_text("_target_: alignlab.methods.clip.ClipMethod\n")
    (tmp_path / "conf/model/drpo.yaml").write_text("defaults: [grpo, _self_]\n")
    told = missing(tmp_path)
    assert [line.partition(" (")[0] for line in told] == [
        "drpo: docs/grpo.md doesn't name model=drpo",
        "barlow: there is no docs/barlow.md",
        "barlow: there is no conf/model/barlow.yaml",
        "barlow: there is no tests/methods/test_barlow.py",
        "barlow: README.md doesn't link docs/barlow.md",
        "siglip2: there is no docs/siglip2.md",
        "siglip2: README.md doesn't link docs/siglip2.md",
    ]


@pytest.mark.distributed
def test_make_check_installs_nothing(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, tmp_path)
    shown = subprocess.run(["make", "-n", "check"], cwd=tmp_path, capture_output=True, text=True)
    assert shown.returncode == 0 and "ruff" in shown.stdout, shown.stderr
    assert "pip install --quiet" not in shown.stdout and "venv .venv" not in shown.stdout
