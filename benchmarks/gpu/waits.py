"""Waits that torch sees in plain training steps, against the list of tests/support/pretend_cuda. A part of `make gpu`."""

import json
import sys
from pathlib import Path

from commands import ROOT, Command, run_all
from rows import Rows, options

sys.path.insert(0, str(ROOT / "tests" / "support"))
from pretend_cuda.allowed import ALLOWED

PROBE = str(Path(__file__).resolve().parent / "probe.py")
STEP = "step"  # a training step that neither logs, validates nor saves, as the pretend device calls it


def main() -> None:
    chosen = options(__doc__)
    rows = Rows(chosen.folder)
    models = ("clip", "siglip", "albef", "sft", "reward") if chosen.full else ("clip",)
    steps = 10 if chosen.full else 3
    same = (
        f"trainer={'gpu' if chosen.full else 'cpu'}",
        f"trainer.max_steps={steps}",
        "trainer.val_check_interval=1000",
    )
    same = (*same, "trainer.log_every_n_steps=1000", "data.batch_size=8", "++trainer.limit_val_batches=1")
    report = {name: chosen.folder / f"{name}.waits.json" for name in models}
    commands = [Command(name, (f"model={name}", *same), script=(PROBE, str(report[name]))) for name in models]
    unlisted, complete = 0, True
    for name, done in run_all(commands, chosen.folder).items():
        if done.error or not report[name].exists():
            rows.add(f"waits of {name}", error=done.error or "nothing was noted")
            complete = False
            continue
        found = json.loads(report[name].read_text())
        if chosen.full and not found["steps"]:
            rows.add(f"waits of {name}", error="no step was watched")
            complete = False
            continue
        strange = {
            where: n for where, n in found["waits"].items() if not any(e.covers(STEP, "", where) for e in ALLOWED)
        }
        unlisted += sum(strange.values())
        rows.add(f"waits of {name} in {found['steps']} steps", sum(found["waits"].values()), "", unlisted=strange)
    if complete:
        rows.add("waits that aren't on the list", unlisted, "")
    raise SystemExit(rows.failed)


if __name__ == "__main__":
    main()
