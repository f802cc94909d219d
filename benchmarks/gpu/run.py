"""`make gpu`: what a GPU is to prove, in order of worth, within a budget of seconds; to outputs/gpu/<time>: gpu.json, table.md, a log a part.

    python benchmarks/gpu/run.py [--budget 420] [--device cuda] [--only decode main_job] [--folder DIRECTORY]

Every part is accounted for, also where it can't run. `--device cpu` runs the same code at tiny sizes: a test of this program, not a measurement.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import report
from parts import PARTS
from schedule import run_parts

ROOT = Path(__file__).resolve().parents[2]
# asked in a process of its own, which leaves no CUDA context behind
ASK = """
import json, os, platform, importlib.metadata as metadata
import torch
cuda = torch.cuda.is_available()
versions = {}
for name in ("lightning", "transformers", "trl", "open_clip_torch", "deepspeed"):
    try:
        versions[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        versions[name] = "missing"
print(json.dumps({
    "card": torch.cuda.get_device_name() if cuda else "none",
    "GiB": round(torch.cuda.get_device_properties(0).total_memory / 2**30) if cuda else 0,
    "cores": len(os.sched_getaffinity(0)), "Python": platform.python_version(), "torch": torch.__version__, **versions,
}))
"""


def machine() -> dict:
    """Card, cores and versions."""
    if importlib.util.find_spec("torch") is None:
        return {"card": "none", "torch": "missing"}
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True)
    return json.loads(done.stdout) if not done.returncode else {"card": "none", "torch": done.stderr.strip()[-200:]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=float, default=420.0, help="seconds for everything")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--patience", type=float, default=1.0, help="factor of the parts' limits, for a slower machine")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], default=None)
    parser.add_argument("--folder", type=Path, default=None, help="default: outputs/gpu/<time>")
    options = parser.parse_args()
    started = time.monotonic()
    folder = (options.folder or ROOT / "outputs" / "gpu" / time.strftime("%Y-%m-%d_%H-%M-%S")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    found = machine() | {"device": options.device, "date": time.strftime("%Y-%m-%d"), "budget": options.budget}
    why_not = "no CUDA device" if options.device == "cuda" and found["card"] == "none" else ""
    judge = options.device == "cuda" and not why_not
    chosen = [part for part in PARTS if options.only is None or part.name in options.only]
    parts = [replace(part, limit=part.limit * options.patience) for part in chosen]
    os.environ["ALIGNLAB_GPU_PATIENCE"] = str(options.patience)
    shown = set()

    def changed(outcomes: list) -> None:
        report.write(folder, outcomes, found, judge)
        for outcome in outcomes:
            if outcome.status not in ("waiting", "running") and outcome.name not in shown:
                shown.add(outcome.name)
                print(f"{outcome.name}: {outcome.status} {outcome.reason} ({outcome.seconds:.0f} s)", flush=True)

    left = options.budget - (time.monotonic() - started)
    outcomes = run_parts(parts, left, folder, options.device, why_not=why_not, changed=changed)
    print(report.table(outcomes, "", judge))
    print(folder)
    raise SystemExit(1 if any(outcome.status == "failed" for outcome in outcomes) else 0)


if __name__ == "__main__":
    main()
