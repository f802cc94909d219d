"""What a person looks at after reinforcement learning: responses before and after, and what the reward cost in KL."""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
from lightning.pytorch.callbacks import Callback

from alignlab.callbacks.evaluators.evaluator import read_by, untouched
from alignlab.callbacks.meters.metrics_csv import LoggedRow, MetricsCsv
from alignlab.files.text import json_lines
from alignlab.files.writing import replaced, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Answers = list[dict[str, Any]]


class ResponseTable(Callback):
    """Writes `samples/responses.jsonl`, `reward_against_kl.png` and `responses.html` when training ends, and prints
    the table.

    Ranks: all of them gather a policy that is cut up; rank zero alone answers.

    Prompts are held-out ones; both times they are answered with the same random numbers. A resumed run keeps what was
    said before its first step.

    Args:
        num_prompts: rows of the table.
    """

    def __init__(self, num_prompts: int = 8) -> None:
        if num_prompts < 1:
            raise ValueError(f"num_prompts={num_prompts} must be at least 1")
        self.num_prompts = num_prompts

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        file = _folder(trainer) / "responses_before.jsonl"
        with pl_module.speaking(answers=True):
            if trainer.is_global_zero and not (file.exists() and trainer.global_step > 0):
                write_text(file, _lines(self._answers(trainer, pl_module)))

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.global_step == 0:
            return
        with pl_module.speaking(answers=True):
            after = self._answers(trainer, pl_module) if trainer.is_global_zero else []
        if not trainer.is_global_zero:
            return
        folder = _folder(trainer)
        before = [row for _, _, row in json_lines(folder / "responses_before.jsonl")]
        pairs = [
            {"prompt": old["prompt"], "before": _without_prompt(old), "after": _without_prompt(new)}
            for old, new in zip(before, after, strict=True)
        ]
        write_text(folder / "responses.jsonl", _lines(pairs))
        rows = next((logger.rows for logger in trainer.loggers if isinstance(logger, MetricsCsv)), [])
        baseline = folder / "best_of_n.jsonl"
        best = [row for _, _, row in json_lines(baseline)] if baseline.exists() else []
        drawn = draw_reward_against_kl(rows, best, folder / "reward_against_kl.png")
        write_text(folder / "responses.html", page(pairs, drawn))
        print_table(pairs)

    def _answers(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> Answers:
        loader = read_by(trainer, "responses", "val_dataloader").val_dataloader()
        batch = next(iter(loader))
        batch = type(batch)(*(None if x is None else x[: self.num_prompts] for x in batch))
        with untouched(pl_module):
            answers = pl_module.answers(trainer.strategy.batch_to_device(batch))
        return [
            {
                "prompt": a.prompt,
                "response": a.response,
                "score": round(a.score, 4),
                "judge": None if a.judge is None else round(a.judge, 4),
                "kl": round(a.kl, 4),
                "tokens": len(a.tokens),
                "ended": a.ended,
            }
            for a in answers
        ]


def draw_reward_against_kl(rows: Sequence[LoggedRow], best: Sequence[dict[str, Any]], file: Path) -> bool:
    """Writes `reward_against_kl` to a file. False: nothing to draw."""
    if (figure := reward_against_kl(rows, best)) is None:
        return False
    with replaced(file) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return True


def reward_against_kl(rows: Sequence[LoggedRow], best: Sequence[dict[str, Any]]) -> "Figure | None":
    """Score and judge over the KL to the reference, training and validation, beside best-of-n: points in order of KL,
    the first step's and the last one's marked.

    None: nothing to draw.
    """
    from matplotlib.figure import Figure  # half a second, and needed once

    curves = {
        "training": ("objective/kl", "objective/score"),
        "validation": ("val/kl", "val/score"),
        "judge (never trained on)": ("val/kl", "val/judge"),
    }
    figure = Figure(figsize=(6, 4.8), layout="constrained")
    axes = figure.subplots()
    drawn = False
    for label, (x, y) in curves.items():
        points = [(row[x], row[y]) for row in rows if x in row and y in row]
        if points:
            (line,) = axes.plot(
                *zip(*sorted(points), strict=True), marker="o", markersize=3, linewidth=0.8, alpha=0.7, label=label
            )
            for (kl, score), mark in ((points[0], "s"), (points[-1], "*")):  # in order of steps
                axes.plot(kl, score, mark, color=line.get_color(), markersize=9, markeredgecolor="black")
            drawn = True
    for name in ("score", "judge"):
        points = [(row["kl"], row[name]) for row in best if row[name] is not None]
        if points:
            axes.plot(*zip(*points, strict=True), "--", color="grey", marker="x", label=f"best of n, {name}")
    if not drawn:
        return None
    for mark, label in (("s", "start"), ("*", "end")):
        axes.plot([], [], mark, color="white", markeredgecolor="black", markersize=8, label=label)
    axes.set(xlabel="KL to the reference, nats a response", ylabel="score")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3, frameon=False)
    return figure


def page(pairs: Answers, with_picture: bool) -> str:
    """The table as a page that needs nothing but its folder."""
    picture = '<p><img src="reward_against_kl.png" alt="reward against KL"></p>' if with_picture else ""
    body = "".join(
        f"<tr><td>{escape(pair['prompt'])}</td>"
        + "".join(
            f"<td>{escape(pair[side]['response'])}</td><td>{pair[side]['score']:.2f}</td>"
            f"<td>{_number(pair[side]['judge'])}</td><td>{pair[side]['kl']:.1f}</td>"
            for side in ("before", "after")
        )
        + "</tr>\n"
        for pair in pairs
    )
    side = "<th>score</th><th>judge</th><th>KL</th>"
    return (
        "<!doctype html><meta charset='utf-8'><title>responses</title>"
        "<style>body{font-family:sans-serif}td{vertical-align:top;padding:4px 8px;border-top:1px solid #ccc}</style>"
        f"<h1>Responses before and after</h1>{picture}"
        f"<table><tr><th>prompt</th><th>before</th>{side}<th>after</th>{side}</tr>\n{body}</table>\n"
    )


def print_table(pairs: Answers) -> None:
    """The table in the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table("prompt", "before", "score", "after", "score", "KL", title="responses before and after")
    for pair in pairs:
        before, after = pair["before"], pair["after"]
        cells = (pair["prompt"], before["response"], f"{before['score']:.2f}", after["response"])
        table.add_row(*(cell.replace("[", r"\[") for cell in cells), f"{after['score']:.2f}", f"{after['kl']:.1f}")
    Console(highlight=False).print(table)


def _folder(trainer: lightning.Trainer) -> Path:
    return Path(trainer.default_root_dir) / "samples"


def _lines(rows: Answers) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _without_prompt(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key != "prompt"}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
