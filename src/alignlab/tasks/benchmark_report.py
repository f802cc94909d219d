"""Tables, CSV file and plot of a benchmark over backends."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from alignlab.files.writing import replaced, write_text
from alignlab.tasks.job import Job
from alignlab.tasks.predictions import Prediction

_AGREEMENT = {
    "same_tokens": "same tokens",
    "largest_logprob_difference": "largest difference of log-probs",
    "perplexity": "perplexity",
    "perplexity_change": "change",
}


def print_tables(rows: Sequence[Prediction], batch_sizes: Sequence[int], job: Job) -> None:
    """Speed, then memory, then agreement with the first backend that worked."""
    columns = ["backend", "status", "batch", "first ms", "ms/token", "tokens/s", "x"]
    lines = [line for row in rows for line in _speed(row, rows[0], batch_sizes)]
    job.table("speed", columns, lines, limit=len(lines))
    whole = [row for row in rows if row["status"] == "ok"]
    gpu = any("peak_gpu_bytes" in row for row in whole)
    parts = [
        "weight_bytes",
        "formula_bytes",
        "peak_host_bytes",
        *(["peak_gpu_bytes"] if gpu else []),
        "load_peak_bytes",
    ]
    names = (part.removesuffix("_bytes").replace("_", " ") + " MB" for part in parts)
    columns = ["backend", "load s", *names, "of the roofline"]
    body = [
        [
            r["backend"],
            r.get("load_seconds"),
            *(_mega(r.get(part)) for part in parts),
            _percent(r.get("roofline_fraction")),
        ]
        for r in whole
    ]
    job.table("loading and memory; batch 1 against weight bytes / bandwidth", columns, body)
    body = [[r["backend"], *map(r.get, _AGREEMENT)] for r in whole]
    yardstick = whole[0]["backend"] if whole else "-"
    job.table(f"agreement with {yardstick}", ["backend", *_AGREEMENT.values()], body)


def _speed(row: Prediction, first: Prediction, batch_sizes: Sequence[int]) -> list[list[object]]:
    """Lines of a backend, one a batch size, with how many times as fast as the first backend it is."""
    lines: list[list[object]] = []
    for size in batch_sizes if row["status"] == "ok" else ():
        key = f"batch_{size}_tokens_per_second"
        times = row[key] / first[key] if row.get(key) and first.get(key) else None
        shown = (f"batch_{size}_first_token_ms", f"batch_{size}_ms_per_token", key)
        name = ["", ""] if lines else [row["backend"], row["status"]]
        lines.append([*name, size, *map(row.get, shown), times])
    return lines or [[row["backend"], row["status"], *[None] * 5]]


def write_csv(rows: Sequence[Prediction], file: Path) -> None:
    """One line a backend, every number in base units (bytes, seconds, ms as named); empty where there is none."""
    columns = list(dict.fromkeys(name for row in rows for name in row if name != "id"))
    columns.sort(key=lambda name: (name not in ("backend", "status", "error"),))  # stable: these first
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(file, text.getvalue())


def plot(rows: Sequence[Prediction], batch_sizes: Sequence[int], bandwidth: float, file: Path) -> None:
    """Tokens per second by batch size, with each backend's floor at one request, and peak memory beside the formula."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    whole = [row for row in rows if row["status"] == "ok"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 1.6 + 0.7 * len(whole)), layout="constrained")
    height, places = 0.8 / len(batch_sizes), range(len(whole))
    for number, size in enumerate(batch_sizes):
        values = [row.get(f"batch_{size}_tokens_per_second", 0.0) for row in whole]
        bars = left.barh([p + number * height for p in places], values, height, label=f"{size} at a time")
        left.bar_label(bars, [f"{value:.3g}" for value in values], padding=6, fontsize=7)
    for place, row in zip(places, whole, strict=True):
        if row.get("weight_bytes"):
            limit = row.get("bandwidth_bytes_per_second", bandwidth) / row["weight_bytes"]
            left.plot([limit, limit], [place - height / 2, place + height / 2], color="black", linewidth=2)
    left.plot([], [], color="black", linewidth=2, label="bandwidth / weight bytes (1 at a time)")
    left.set(xlabel="tokens per second", xscale="log", yticks=[p + 0.4 - height / 2 for p in places])
    left.set_yticklabels([row["backend"] for row in whole])
    left.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=2)
    left.set_xlim(right=1.6 * left.get_xlim()[1])  # room for the numbers
    key = "peak_gpu_bytes" if any("peak_gpu_bytes" in row for row in whole) else "peak_host_bytes"
    peaks = [row.get(key, row.get("peak_host_bytes", 0.0)) / 1e6 for row in whole]  # a backend may be on the CPU
    right.barh(places, peaks, 0.35, label=key.replace("_", " ").replace(" bytes", ""))
    right.barh(
        [p + 0.4 for p in places], [row.get("formula_bytes", 0.0) / 1e6 for row in whole], 0.35, label="weights + cache"
    )
    right.set(xlabel="MB", yticks=[p + 0.2 for p in places])
    right.set_yticklabels([row["backend"] for row in whole])
    right.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=2)
    for axes in (left, right):
        axes.invert_yaxis()
    with replaced(file) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    plt.close(figure)


def _mega(value: float | None) -> float | None:
    return None if value is None else round(value / 1e6, 1)


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.0f} %"
