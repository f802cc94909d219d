"""Runs parts one after the other within a budget of seconds: each a process group of its own with a limit of its own, results as they come.

Standard library only. A part writes rows to `rows.jsonl` in its folder while it runs (`rows.py`); what it had written when it was ended counts.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Status = Literal["waiting", "running", "ok", "failed", "over its limit", "no time", "not run"]
ENDING = 3.0  # seconds between asking a process group to end and killing it; part of the limit


@dataclass(frozen=True)
class Part:
    """One question, and the program that answers it."""

    name: str
    title: str
    command: tuple[str, ...]  # the words {device}, {folder} and {seconds}, how long it may take, are filled in
    limit: float  # seconds
    least: float = 15.0  # below this it isn't begun


@dataclass
class Outcome:
    """What became of a part."""

    name: str
    title: str
    status: Status = "waiting"
    reason: str = ""
    seconds: float = 0.0
    rows: list[dict] = field(default_factory=list)


def run_parts(
    parts: Sequence[Part],
    budget: float,
    folder: Path,
    device: str,
    *,
    why_not: str = "",
    changed: Callable[[list[Outcome]], None] = lambda outcomes: None,
    clock: Callable[[], float] = time.monotonic,
) -> list[Outcome]:
    """Outcomes in the order of the parts. `why_not`: nothing is begun, for this reason. `changed` is called after each change.

    A part gets what is left of the budget, at most its limit; with less than its `least` left it is marked "no time" and the next, which may
    need less, has its turn.
    """
    started = clock()
    outcomes = [Outcome(part.name, part.title) for part in parts]
    for part, outcome in zip(parts, outcomes, strict=True):
        left = budget - (clock() - started)
        if why_not:
            outcome.status, outcome.reason = "not run", why_not
        elif left < min(part.least, part.limit):
            outcome.status, outcome.reason = (
                "no time",
                f"{max(0.0, left):.0f} s left, needs {min(part.least, part.limit):.0f}",
            )
        else:
            outcome.status = "running"
            changed(outcomes)
            begun = clock()
            run_part(part, outcome, min(part.limit, left), folder / part.name, device)
            outcome.seconds = round(clock() - begun, 1)
        changed(outcomes)
    return outcomes


def run_part(part: Part, outcome: Outcome, limit: float, folder: Path, device: str) -> None:
    """Runs one part to its end or its limit, and reads its rows."""
    folder.mkdir(parents=True, exist_ok=True)
    filled = {"{device}": device, "{folder}": str(folder), "{seconds}": f"{limit - ENDING:.0f}"}
    command = [filled.get(word, word) for word in part.command]
    log = folder / "log.txt"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            code = process.wait(timeout=max(0.1, limit - ENDING))
        except subprocess.TimeoutExpired:
            code = None
        finally:  # children that outlived the part too, and everything when this program is interrupted
            end_group(process)
    outcome.rows = read_rows(folder / "rows.jsonl")
    if code is None:
        outcome.status, outcome.reason = "over its limit", f"ended after {limit:.0f} s"
    elif code:
        errors = [row["error"] for row in outcome.rows if row.get("error")]
        outcome.status, outcome.reason = "failed", errors[0] if errors else f"exit code {code}: {last_line(log)}"
    else:
        outcome.status = "ok"


def end_group(process: subprocess.Popen) -> None:
    """Ends what is left of a process group: asks, waits, kills."""
    for number, patience in ((signal.SIGTERM, ENDING - 1), (signal.SIGKILL, 1.0)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        end = time.monotonic() + patience
        while time.monotonic() < end and _alive(process):
            time.sleep(0.02)
    process.wait()


def _alive(process: subprocess.Popen) -> bool:
    process.poll()  # a zombie would count as alive
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def read_rows(file: Path) -> list[dict]:
    """Complete lines of a part's rows; the last one may have been cut off."""
    rows = []
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def last_line(log: Path) -> str:
    """Of a log, at most 300 characters."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][-300:] if lines else "no output"
