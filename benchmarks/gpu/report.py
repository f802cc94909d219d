"""What a run of `make gpu` leaves: gpu.json and table.md, rewritten after every change; targets beside the numbers, met or not."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from alignlab.files.writing import write_text

from schedule import Outcome

# name of a row -> (comparison, number): what one H100 or H200 is to reach
TARGETS: dict[str, tuple[str, float]] = {
    "losses on the GPU against the CPU, largest difference": ("<=", 1e-4),
    "CLIP ViT-B/16, MFU": (">=", 0.45),
    "CLIP ViT-B/16, of open_clip eager": (">=", 1.5),
    "CLIP ViT-B/16 compiled, of open_clip compiled": (">=", 1.15),
    "ALBEF ViT-B/16, MFU": (">=", 0.45),
    "first token of the process": ("<=", 5.0),
    "decode 135M, batch 1": (">=", 700.0),
    "decode 1B, batch 1, of the bandwidth floor": (">=", 0.60),
    "decode 8B, batch 1, of the bandwidth floor": (">=", 0.75),
    "decode 135M, batch 1, of transformers' static cache": (">=", 1.0),
    "decode 1B, batch 1, of transformers' static cache": (">=", 1.0),
    "decode 8B, batch 1, of transformers' static cache": (">=", 1.0),
    "PPO 135M fp32, of TRL 1.12": (">=", 4.0),
    "PPO 135M fp32, first update": ("<=", 10.0),
    "waits that aren't on the list": ("<=", 0.0),
    "main job, seconds": ("<=", 60.0),
}


def judged(row: dict, judge: bool) -> dict:
    """The row with its target and whether it is met, where it has one and `judge` says that this is the machine it was set for."""
    if not judge or row["name"] not in TARGETS or not isinstance(row.get("value"), int | float):
        return row
    comparison, number = TARGETS[row["name"]]
    met = row["value"] >= number if comparison == ">=" else row["value"] <= number
    return row | {"target": f"{comparison} {number:g}", "met": met}


def table(outcomes: Sequence[Outcome], head: str, judge: bool) -> str:
    """Markdown: a line a part, then a line a number."""
    lines = [head, "", "| part | status | seconds | |", "|---|---|---|---|"]
    lines += [f"| {o.title} | {o.status} | {o.seconds or ''} | {o.reason.replace('|', '/')[:200]} |" for o in outcomes]
    rows = [judged(row, judge) for outcome in outcomes for row in outcome.rows]
    if rows:
        lines += ["", "| number | value | unit | target | |", "|---|---|---|---|---|"]
    for row in rows:
        value = row.get("error") or row.get("value")
        shown = f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/")[:200]
        verdict = {True: "met", False: "not met", None: ""}[row.get("met")]
        lines.append(f"| {row['name']} | {shown} | {row.get('unit', '')} | {row.get('target', '')} | {verdict} |")
    missing = sorted(set(TARGETS) - {row["name"] for row in rows if "target" in row}) if judge else []
    lines += ["", "Targets without a number: " + "; ".join(missing) + "."] if missing else []
    return "\n".join(lines) + "\n"


def write(folder: Path, outcomes: Sequence[Outcome], machine: dict, judge: bool) -> None:
    """Both files, each complete under its name."""
    head = ", ".join(f"{key} {value}" for key, value in machine.items())
    parts = [asdict(outcome) for outcome in outcomes]
    for part in parts:
        part["rows"] = [judged(row, judge) for row in part["rows"]]
    content = {
        "gpu.json": json.dumps({"machine": machine, "parts": parts}, indent=1) + "\n",
        "table.md": table(outcomes, head, judge),
    }
    for name, text in content.items():
        write_text(folder / name, text)
