"""Benchmarks take --device: a GPU has sections of its own, and FLOPs are the same wherever they are counted."""

import ast
import re
import sys
from pathlib import Path

from tiny_run import REPOSITORY

import pytest
import torch

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import measuring

# measuring and turns are no benchmarks; two processes of a CPU agree by gloo; a plan is compared with a card's memory or nothing; the
# others ask no device.
WITHOUT = (
    "measuring",
    "agreement",
    "corpus_cleaning",
    "fetch",
    "personal_data",
    "picture_plan",
    "shards",
    "tokenizers_data",
    "turns",
)
PROGRAMS = sorted(file for file in (REPOSITORY / "benchmarks").glob("*.py") if file.stem not in WITHOUT)


def test_make_bench_leaves_out_what_asks_for_words() -> None:
    left_out = re.search(r"^ASKING := (.*)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)[1].split()
    asking = {"measuring", "turns", "lm_widths"}  # no benchmarks; minutes, and a file of its own
    for file in (REPOSITORY / "benchmarks").glob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "add_argument":
                needed = not any(word.arg == "nargs" for word in call.keywords)
                if needed and not str(call.args[0].value).startswith("-"):
                    asking.add(file.stem)
    assert set(left_out) == asking


@pytest.mark.parametrize("file", PROGRAMS, ids=lambda file: file.stem)
def test_every_benchmark_takes_a_device(file: Path) -> None:
    assert "device_option(parser)" in file.read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_without_a_gpu_it_is_one_line() -> None:
    with pytest.raises(SystemExit, match="--device cuda: no CUDA device here"):
        measuring.check_device("cuda")


def test_a_run_on_a_cpu_leaves_the_gpus_section_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for device in ("cuda", "cpu"):
        measuring.write_section(measuring.section_name("clip", device), f"measured on {device}", page)
    measuring.write_section(measuring.section_name("clip", "cpu"), "measured again", page)
    assert "measured on cuda" in page.read_text() and "measured on cpu" not in page.read_text()


@pytest.mark.slow  # every shape is worked out in Python
def test_flops_are_the_same_with_and_without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    import albef

    monkeypatch.setitem(albef.SIZES, "small", albef.WARM_UP)

    counted = [albef.gflops_per_sample("alignlab", 4, where, "small") for where in ("meta", "cpu")]
    assert counted[0] == pytest.approx(counted[1], rel=1e-12) and counted[0] > 0


def test_no_benchmark_has_the_name_of_what_supports_tests() -> None:
    """Both folders are on the path here, and the first one would hide the other's module."""
    names = [
        {file.stem for file in folder.glob("*.py")}
        for folder in (REPOSITORY / "benchmarks", REPOSITORY / "tests" / "support")
    ]
    assert not names[0] & names[1]
