"""Tables of responses, reward against KL, best-of-n: from a run, and what a resumed run keeps."""

import json
from functools import partial
from pathlib import Path

from alignlab.callbacks.evaluators.best_of_n import BestOfN
from alignlab.callbacks.evaluators.responses import ResponseTable, page, reward_against_kl
from alignlab.callbacks.meters.metrics_csv import MetricsCsv
from alignlab.methods.ppo import PpoMethod
from alignlab.models.language.loading import pretrained
from alignlab.systems.choosing import system_of
from tiny_policy import VOCABULARY, Prompts, constant_rate, count_good, save_model, trainer


def test_a_run_leaves_table_picture_and_page(tmp_path: Path, capsys) -> None:
    path = save_model(tmp_path / "model")
    run = tmp_path / "run"

    def fit(steps: int, checkpoint: Path | None = None) -> None:
        method = partial(
            PpoMethod,
            partial(pretrained, path=path),
            count_good,
            judge=lambda prompts, responses: [float(len(r)) for r in responses],
            response_length=6,
        )
        system = system_of(method, vocabulary=VOCABULARY, optim=constant_rate(1e-2))
        settings = {"callbacks": [ResponseTable(3), BestOfN(4)], "logger": MetricsCsv(str(run)), "log_every_n_steps": 1}
        one = trainer(run, steps, limit_val_batches=1, val_check_interval=1, num_sanity_val_steps=0, **settings)
        one.fit(system, datamodule=Prompts(8), ckpt_path=checkpoint)
        one.save_checkpoint(run / "last.ckpt")
        assert "best_of_4/judge" in one.callback_metrics

    fit(2)
    rows = [json.loads(line) for line in (run / "samples/responses.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and rows[0]["before"]["kl"] == 0.0 and rows[0]["after"]["kl"] != 0.0
    assert rows[0]["before"]["judge"] == float(len(rows[0]["before"]["response"]))
    assert (run / "samples/reward_against_kl.png").read_bytes()[:4] == b"\x89PNG"
    assert "reward_against_kl.png" in (run / "samples/responses.html").read_text()
    assert "before and after" in capsys.readouterr().out
    best = [json.loads(line) for line in (run / "samples/best_of_n.jsonl").read_text().splitlines()]
    assert [row["n"] for row in best] == [1, 2, 4] and best[0]["score"] <= best[1]["score"] <= best[2]["score"]
    fit(3, run / "last.ckpt")
    again = [json.loads(line) for line in (run / "samples/responses.jsonl").read_text().splitlines()]
    assert [row["before"] for row in again] == [row["before"] for row in rows]
    assert [row["after"] for row in again] != [row["after"] for row in rows]


def test_reward_against_kl_is_in_order_of_kl_with_start_and_end() -> None:
    points = [(0.0, 1.0), (3.0, 2.0), (1.0, 1.5), (2.0, 1.8)]
    figure = reward_against_kl(
        [{"step": i, "objective/kl": x, "objective/score": y} for i, (x, y) in enumerate(points)], []
    )
    curve, start, end, *_ = figure.axes[0].lines
    assert list(curve.get_xdata()) == [0.0, 1.0, 2.0, 3.0] and list(curve.get_ydata()) == [1.0, 1.5, 1.8, 2.0]
    assert (start.get_xdata()[0], start.get_ydata()[0]) == points[0]
    assert (end.get_xdata()[0], end.get_ydata()[0]) == points[-1]
    assert {"start", "end"} <= {text.get_text() for text in figure.axes[0].get_legend().get_texts()}


def test_texts_are_escaped() -> None:
    answer = {"response": "<b>", "score": 1.0, "judge": None, "kl": 0.0}
    html = page([{"prompt": "<script>", "before": answer, "after": answer}], with_picture=False)
    assert "<script>" not in html and "&lt;b&gt;" in html and "<img" not in html
