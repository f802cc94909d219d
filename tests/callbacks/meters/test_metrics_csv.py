"""metrics.csv grows by rows and by columns, and survives a second run."""

from collections.abc import Callable
from pathlib import Path

from alignlab.callbacks.meters.curves import draw, drawn
from alignlab.callbacks.meters.metrics_csv import MetricsCsv
from alignlab.reports.curves import panels

import pytest


def test_one_row_a_step_and_late_columns(tmp_path: Path) -> None:
    logger = MetricsCsv(str(tmp_path))
    logger.log_metrics({"train/loss": 2.0}, step=0)
    logger.log_metrics({"lr": 0.5}, step=0)
    logger.log_metrics({"train/loss": 1.0}, step=10)
    assert (tmp_path / "metrics.csv").read_text().split() == ["step,lr,train/loss", "0,0.5,2.0"]
    logger.log_metrics({"val/loss": 3.0}, step=10)
    logger.finalize("success")
    assert (tmp_path / "metrics.csv").read_text().split() == [
        "step,lr,train/loss,val/loss",
        "0,0.5,2.0,",
        "10,,1.0,3.0",
    ]


def test_a_second_logger_goes_on(tmp_path: Path) -> None:
    first = MetricsCsv(str(tmp_path))
    for step in range(4):
        first.log_metrics({"train/loss": float(step)}, step=step)
    first.finalize("success")
    second = MetricsCsv(str(tmp_path))
    second.forget_after(2)
    second.log_metrics({"train/loss": 9.0}, step=2)
    second.finalize("success")
    assert (tmp_path / "metrics.csv").read_text().split() == ["step,train/loss", "0,0.0", "1,1.0", "2,9.0"]


def test_curves_of_what_was_logged(tmp_path: Path) -> None:
    rows = [
        {"step": 0, "train/loss": 2.0, "lr": 1.0},
        {"step": 5, "train/loss": 1.0, "val/text_to_image_recall_at_1": 0.5},
    ]
    assert panels(rows) == {
        "losses": {"train/loss": ([0, 5], [2.0, 1.0])},
        "retrieval": {"val/text_to_image_recall_at_1": ([5], [0.5])},
    }
    draw(rows, tmp_path / "samples" / "curves.png")
    assert (tmp_path / "samples" / "curves.png").read_bytes().startswith(b"\x89PNG")
    ppo = {
        "objective/score": 1.0,
        "val/score": 2.0,
        "objective/kl": 0.5,
        "val/kl": 0.6,
        "objective/kl_coefficient": 1.0,
    }
    ppo |= {"objective/response_length": 9.0, "val/response_length": 8.0, "policy/entropy": 3.0}
    figure = drawn([{"step": step} | ppo for step in range(3)])
    figure.draw_without_rendering()
    titles = ["score", "KL to the reference, nats a response", "response length, tokens"]
    assert [axes.get_title() for axes in figure.axes] == titles
    for axes in figure.axes:
        legend = axes.get_legend()
        assert len(legend.get_texts()) == 2 and legend.get_window_extent().y1 < axes.get_window_extent().y0
        assert legend.get_window_extent().y0 >= 0
    draw([], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_a_picture_shows_what_it_has_room_for() -> None:
    every = {
        "train/itc_loss": 1.0,
        "val/itc_loss": 1.0,
        "val/recall_at_1": 0.1,
        "val/recall_at_5": 0.2,
        "val/other_recall_at_10": 0.3,
    }
    rows = [{"step": step} | every for step in range(2)] + [{"step": 2, "val/zero_shot_recall_at_1": 0.1}]
    losses, retrieval = drawn(rows).axes
    assert [line.get_label() for line in retrieval.lines] == ["val/other_recall_at_10", "val/recall_at_1"]
    train, held_out = losses.lines
    assert train.get_color() == held_out.get_color() and train.get_alpha() < 1 and held_out.get_marker() == "o"
    assert len(drawn(rows[-1:]).axes[0].lines) == 1  # a point is better than nothing


def test_a_half_line_of_a_killed_run_is_dropped(tmp_path: Path) -> None:
    first = MetricsCsv(str(tmp_path))
    for step in range(3):
        first.log_metrics({"train/loss": step + 0.125, "epoch": 0}, step=step)
    first.finalize("success")
    whole = (tmp_path / "metrics.csv").read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in range(len(lines[0]), len(whole)):
        (tmp_path / "metrics.csv").write_bytes(whole[:cut])
        complete = sum(len(b"".join(lines[: n + 1])) <= cut for n in range(1, 4))
        assert [row["step"] for row in MetricsCsv(str(tmp_path)).rows] == list(range(complete))
        assert (tmp_path / "metrics.csv").read_bytes() == b"".join(lines[: complete + 1]), "numbers are as they were"


def test_a_row_grows_after_a_flush(tmp_path: Path) -> None:
    logger = MetricsCsv(str(tmp_path))
    logger.log_metrics({"train/loss": 2.0}, step=0)
    logger.flush()
    logger.log_metrics({"train/loss": 1.0, "lr": 0.5}, step=0)
    logger.finalize("success")
    assert (tmp_path / "metrics.csv").read_text().split() == ["step,train/loss,lr", "0,1.0,0.5"]


@pytest.mark.parametrize(
    ("content", "steps", "said"),
    [
        (b"step,a\r\n0,1.0\r\n1,2.0,0.5\r\n2,3.0\r\n", [0, 2], "has 1 lines that are no rows of it; the other 2 go on"),
        (b"step,a\r\n0,1.0\r\n1,x\r\n", [0], "has 1 lines"),
        (b'step,a\r\n0,1.0\r\n1,"2.0\r\n2,3.0\r\n', [0, 2], "has 1 lines"),
        (b"step,a\r\n0,1.0\r\n1,2.0\r\n0,1.0\r\n2,3.0\r\n", [0, 1, 2], "has 1 lines"),  # two runs in one file
        (b"\0\0\0\0", [], "has no line of columns"),
        (b"0,1.0\r\n1,2.0\r\n", [], "has no line of columns"),
        (b"", [], None),
    ],
)
def test_a_damaged_file_is_set_aside_and_begun_again(
    tmp_path: Path, content: bytes, steps: list[int], said: str | None
) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    logger = MetricsCsv(str(tmp_path))
    assert [row["step"] for row in logger.rows] == steps
    if said is None:
        assert logger.notes == []
    else:
        (note,) = logger.notes
        assert note.startswith(f"metrics.csv {said}") and note.endswith("as it was is metrics.csv.damaged")
        assert (tmp_path / "metrics.csv.damaged").read_bytes() == content
    logger.log_metrics({"b": 1.0}, step=9)
    logger.finalize("success")
    again = MetricsCsv(str(tmp_path))
    assert [row["step"] for row in again.rows] == [*steps, 9] and again.notes == []


def test_a_write_that_failed_is_made_good(tmp_path: Path, small_disk: Callable[[str], Path]) -> None:
    folder = small_disk("64k")
    logger = MetricsCsv(str(folder))
    for step in range(40):
        logger.log_metrics({"loss": 0.5}, step=step)
    logger.flush()
    filler = folder / "filler"
    with pytest.raises(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    for name in ("val/loss", "other"):  # columns more; Lightning closes its loggers after an error
        with pytest.raises(OSError):
            logger.log_metrics({name: 0.5}, step=39)
        with pytest.raises(OSError):
            logger.finalize("failed")
    assert [row["step"] for row in MetricsCsv(str(folder)).rows] == list(range(40)), (
        "nothing wide below a narrow header"
    )
    filler.unlink()
    logger.finalize("failed")
    again = MetricsCsv(str(folder))
    assert again.notes == [] and again.rows == logger.rows
