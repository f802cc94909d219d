"""Short runs of train.py in processes of their own: what runs out of memory there takes nobody along."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from alignlab.files.result import Result
from alignlab.launch.environment import of_one_process
from alignlab.launch.processes import die_with_parent
from alignlab.launch.rank_watch import ended_how
from alignlab.launch.sweep import quoted
from alignlab.studies.reading.tables import Logged, logged

_OUT = ("out of memory", "outofmemory", "memoryerror", "sigkill", "cannot allocate")
QUIET = ("callbacks.samples=null", "callbacks.checkpoint=null", "callbacks.curves=null", "callbacks.progress=null")


@dataclass(frozen=True)
class Run:
    """A short run that has ended.

    Attributes:
        status: ok, diverged, failed, or out of memory.
    """

    status: str
    reason: str | None
    result: Result | None
    told: Logged


def default_program() -> list[str]:
    """train.py of the working directory; elsewhere the one that the package carries."""
    here = Path("train.py")
    return [sys.executable, str(here if here.is_file() else Path(__file__).parents[2] / "programs" / "train.py")]


def run(program: Sequence[str], words: Sequence[str], folder: Path) -> Run:
    """Runs the program with words in a folder of its own, its output in console.log.

    Raises:
        ValueError: the program refused the words, with what it said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [*program, *words, f"hydra.run.dir={quoted(folder.resolve())}"]
    with (folder / "console.log").open("wb") as console:
        code = subprocess.run(
            command,
            env=of_one_process(),
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,
            check=False,
        ).returncode
    result = Result.read(folder)
    said = (folder / "console.log").read_text(encoding="utf-8", errors="replace")
    if code == 2 and "out of memory" not in said.lower():
        errors = [line for line in said.splitlines() if line.startswith("error:")]
        raise ValueError(
            (errors or said.strip().splitlines()[-1:] or ["the run was refused"])[0].removeprefix("error: ")
        )
    status = result.status if result is not None else "failed"
    reason = result.reason if result is not None else ended_how(code)
    if status not in ("ok", "diverged") and any(word in f"{reason} {said[-4000:]}".lower() for word in _OUT):
        status = "out of memory"
    return Run(status, reason, result, logged(folder))


def setting(program: Sequence[str], words: Sequence[str], key: str) -> object:
    """A value of the config that words compose.

    Raises:
        ValueError: they compose none, or it has no such key.
    """
    command = [*program, *words, "--cfg", "job"]
    done = subprocess.run(command, env=of_one_process(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ValueError((done.stderr.strip().splitlines() or ["nothing was composed"])[0].removeprefix("error: "))
    node = yaml.safe_load(done.stdout)
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            raise ValueError(f"the config has no {key}")
        node = node[part]
    return node
