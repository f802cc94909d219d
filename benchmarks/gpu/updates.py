"""PPO and GRPO updates by phase, float32 and bfloat16, beside TRL 1.12: each side a process of its own. A part of `make gpu`."""

import importlib.util
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from ppo_sides import OURS, TRL
from rows import Rows, options
from turns import Worker

GRPO = "GRPO"  # ours, all weights; PPO's sides have their own names
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
LEAST = {"135M": 20.0, "1B": 30.0, "tiny": 0.0}  # seconds below which a side isn't begun


def measured(rows: Rows, label: str, side: str, device: str, setting: str, precision: str) -> float:
    """Seconds of the second update; the first is a row of its own."""
    program, side = ("grpo_sides", OURS) if side == GRPO else ("ppo_sides", side)
    worker = Worker(program, side, updates=4, setting=setting, device=device, precision=precision)
    try:
        first, second = worker.turn(), worker.turn()
    finally:
        worker.close()
    rows.add(f"{label}, first update", first["update"], "s")
    phases = {key: round(value, 3) for key, value in second.items() if key not in ("update", "peak")}
    rows.add(f"{label}, update", second["update"], "s", peak_gib=second["peak"] / 2**30, **phases)
    return second["update"]


def main() -> None:
    chosen = options(__doc__)
    rows, deadline = Rows(chosen.folder), chosen.deadline
    os.environ["SHOW"] = "1"  # the workers' complaints belong to the log
    seconds: dict[tuple[str, str, str], float] = {}
    cases = [
        (setting, precision, side)
        for setting in (("135M", "1B") if chosen.full else ("tiny",))
        for sides in ((OURS, TRL), (GRPO,))
        for precision in PRECISIONS
        for side in sides
    ]
    if not chosen.full:
        cases = [case for case in cases if case[1] == "fp32"]
    for setting, precision, side in cases:
        names = {OURS: "PPO", GRPO: "GRPO", TRL: TRL}
        label = f"{names[side]} {setting} {precision}"
        if side == TRL and importlib.util.find_spec("trl") is None:
            rows.add(label, "not run: TRL 1.12 is missing")
            continue
        if chosen.full and time.monotonic() + LEAST[setting] > deadline:
            rows.add(label, "no time")
            continue
        with rows.attempt(label):
            seconds[setting, precision, side] = measured(
                rows, label, side, chosen.device, setting, PRECISIONS[precision]
            )
        if side == TRL and (setting, precision, OURS) in seconds and (setting, precision, TRL) in seconds:
            ratio = seconds[setting, precision, TRL] / seconds[setting, precision, OURS]
            rows.add(f"PPO {setting} {precision}, of TRL 1.12", ratio, "x")
    raise SystemExit(rows.failed)


if __name__ == "__main__":
    main()
