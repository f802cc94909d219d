"""What the pretend device notes: by phase of the program, kind and place."""

import collections
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

WAIT, TO_HOST, BLOCKING, COPY = "wait", "copy to host", "blocking copy", "copy"
MIXED, DTYPES, ADDRESS, COLLECTIVE, EARLY = "mixed devices", "dtypes", "address", "collective on cpu", "read too early"
WAITING = (WAIT, TO_HOST, BLOCKING)  # the host stands until the device has caught up
REFUSED = (MIXED, DTYPES, ADDRESS, COLLECTIVE, EARLY)  # a real device raises, or answers wrongly

ROOT = os.getcwd() + os.sep
HERE = os.path.join("tests", "support", "pretend_cuda")
AROUND = ("runs/train.py", "train.py", "benchmarks/gpu/probe.py")  # lines around everything
PHASE = ["start"]
LOG: collections.Counter = collections.Counter()  # (phase, kind, what, where)


def note(kind: str, what: object) -> None:
    """One entry of the log."""
    LOG[PHASE[-1], kind, str(what).removesuffix(".default"), where()] += 1


@contextmanager
def phase(name: str) -> Iterator[None]:
    """What entries belong to inside."""
    PHASE.append(name)
    try:
        yield
    finally:
        PHASE.pop()


def where() -> str:
    """The innermost two lines of the project and, if deeper, up to three of libraries other than torch."""
    frame, libraries, own = sys._getframe(2), [], []
    while frame is not None:
        name = frame.f_code.co_filename
        at = f":{frame.f_lineno} ({frame.f_code.co_name})"
        if "site-packages" in name:
            short = name.rpartition("site-packages/")[2]
            if not own and not short.startswith("torch/") and "apply_func" not in short:
                libraries.append(short + at)
        elif name.startswith(ROOT) and HERE not in name:
            own.append(name.removeprefix(ROOT).removeprefix("src/alignlab/") + at)
        frame = frame.f_back
    near = [line for line in own if not line.startswith(AROUND)]
    return " < ".join([*libraries[:3], *near[:2]]) or "?"
