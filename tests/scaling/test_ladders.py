"""Ladders as they are typed: run directories, tables, and what is wrong with them."""

import itertools
import json
import shutil
from pathlib import Path

import schaeffer
from alignlab.cli import main
from alignlab.scaling.curve import wilson, zero_hits
from alignlab.scaling.findings import findings
from alignlab.scaling.fits import expected, fits, largest_left_out
from alignlab.scaling.reading import ladder
from alignlab.scaling.reading.kinds import KINDS
from alignlab.scaling.reading.sizes import size_of
from alignlab.scaling.shapes import shape

import numpy as np
import pytest
import torch

Told = dict[str, object]


def report(capsys: pytest.CaptureFixture, *words: str) -> tuple[int, Told, str]:
    """Code, report.json, standard error."""
    folder = Path(words[0]).parent / "told"
    shutil.rmtree(folder, ignore_errors=True)
    code = main(["scaling", "report", *words, "--output", str(folder)])
    file = folder / "report.json"
    return code, json.loads(file.read_text()) if file.exists() else {}, capsys.readouterr().err


def shapes(told: Told) -> dict[str, str]:
    return {curve["metric"]: curve["shape"] for curve in told["tasks"][0]["curves"]}


def edit(run: Path, change: object) -> None:
    """Changes each row of a run's items."""
    rows = [json.loads(line) for line in (run / "items.jsonl").read_text().splitlines()]
    rows = [row for place, row in enumerate(rows) if change(place, row) is not False]
    (run / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    return schaeffer.ladder(tmp_path / "ladder")


def test_a_jump_that_the_metric_makes(digits: Path, capsys: pytest.CaptureFixture) -> None:
    """arXiv:2304.15004: the same outputs jump under exact match and improve steadily under edit distance."""
    code, told, _ = report(capsys, str(digits))
    assert code == 0 and told["tasks"][0]["verdict"] == "metric_artefact"
    assert shapes(told)["exact_match"] == "sharp" and shapes(told)["edit_distance"] == "smooth_up"
    assert [model["x"] for model in told["models"]] == [1e5 * 4**place for place in range(5)]
    curve = next(c for c in told["tasks"][0]["curves"] if c["metric"] == "exact_match")
    assert all(low <= v <= high for low, v, high in zip(curve["low"], curve["value"], curve["high"], strict=True))
    assert curve["floor"] == [1 / 200] * 5
    assert any("amid the jump" in line for line in told["tasks"][0]["next"])


def test_a_jump_that_the_models_make(tmp_path: Path) -> None:
    schaeffer.ladder(tmp_path, length=3, rates=(0.2, 0.22, 0.25, 0.9, 0.95))
    (told,) = findings(ladder.read([str(tmp_path)]))
    assert told.verdict.code == "sharp_in_all" and "edit_distance" in told.verdict.text


def test_a_task_that_nobody_solves_is_below_resolution(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    schaeffer.ladder(tmp_path / "hard", length=40, rates=(0.3, 0.4, 0.5, 0.6, 0.7))
    _, told, _ = report(capsys, str(tmp_path / "hard"))
    task = told["tasks"][0]
    assert task["verdict"] == "below_resolution" and shapes(told)["exact_match"] == "below_resolution"
    assert shapes(told)["edit_distance"] == "smooth_up" and "meanwhile better" in task["text"]
    assert any("items for 8 hits" in line for line in task["next"])


def test_three_sizes_are_insufficient(digits: Path, capsys: pytest.CaptureFixture) -> None:
    for place in (3, 4):
        shutil.rmtree(digits / f"size_{place}")
    code, told, _ = report(capsys, str(digits))
    assert (
        code == 0 and told["tasks"][0]["verdict"] == "insufficient" and set(shapes(told).values()) == {"insufficient"}
    )


def test_items_that_models_dont_share(digits: Path, capsys: pytest.CaptureFixture) -> None:
    edit(digits / "size_1", lambda place, row: place >= 20)
    edit(digits / "size_3", lambda place, row: place < 190)
    _, told, _ = report(capsys, str(digits))
    assert any("170 of 200 items are in all models" in line for line in told["problems"])
    assert told["tasks"][0]["curves"][0]["n"] == [170] * 5


def test_rows_that_are_no_numbers_are_listed(digits: Path, capsys: pytest.CaptureFixture) -> None:
    def broken(place: int, row: dict) -> None:
        if place < 3:
            row["target_logprobs"][0] = float("nan")

    edit(digits / "size_2", broken)
    with (digits / "size_2" / "items.jsonl").open("a") as file:
        file.write('{"id": \n[1, 2]\n')
    (digits / "size_0" / "result.json").write_text('{"status": "diverged", "parameters": 5}')
    code, told, _ = report(capsys, str(digits))
    said = "\n".join(told["problems"])
    assert code == 0 and f"{digits}/size_2/items.jsonl:1: target_logprobs isn't a list of finite numbers" in said
    assert "3 of 200 items lack what token_logprob is read from" in said
    assert "items.jsonl:201: no JSON" in said and "items.jsonl:202: no object with an id" in said
    assert "size_0: diverged; left out" in said and len(told["models"]) == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing/*"], "there is no nothing/*"),
        (["--x", "flops"], "doesn't say its flops"),
        (["--task", "words"], "there is no task words; there are: digits"),
        (["--metric", "brier"], "there is no metric brier"),
    ],
)
def test_bad_input_is_a_line(digits: Path, capsys: pytest.CaptureFixture, words: list[str], said: str) -> None:
    words = words if words[0] == "nothing/*" else [str(digits), *words]
    assert main(["scaling", "report", *words, "--output", str(digits / "told")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_items_without_any_spread(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """All models right everywhere is flat; four items are too few to say anything."""
    for items, place in itertools.product((40, 4), range(5)):
        run = tmp_path / str(items) / str(place)
        run.mkdir(parents=True)
        (run / "result.json").write_text(json.dumps({"parameters": 10**place}))
        row = {"correct": 1, "target": "a", "prediction": "a", "target_logprobs": [0.0]}
        lines = [json.dumps({"id": number, **row}) + "\n" for number in range(items)]
        (run / "items.jsonl").write_text("".join(lines))
    told = findings(ladder.read([str(tmp_path / "40")]))
    assert told[0].verdict.code == "flat" and {each.shape.name for each in told[0].curves} == {"flat"}
    assert main(["scaling", "report", str(tmp_path / "4"), "--output", str(tmp_path)]) == 2
    assert "exact_match rests on 4 items; 5 are the least" in capsys.readouterr().err


def test_runs_of_equal_size_are_averaged(digits: Path) -> None:
    """Seeds of one size are one point."""
    shutil.copytree(digits / "size_2", digits / "size_2_again")
    edit(digits / "size_2_again", lambda place, row: row.update(correct=False))
    curve = next(c for c in ladder.read([str(digits)]).curves if c.metric.name == "exact_match")
    assert len(curve) == 5 and curve.items[2].max() == 0.5 and "size_2_again" in curve.names[2]


def test_how_large_a_run_is(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps({"parameters": 7, "steps": 10, "world_size": 2}))
    (tmp_path / "metrics.csv").write_text("step,val/loss,train/gflops_per_sample\n5,2.0,\n10,0.5,3.0\n10,nan,\n")
    config = {"data": {"batch_size": 4, "max_length": 8, "rows": "a.plain_text.PlainText"}}
    (tmp_path / "config.yaml").write_text(json.dumps(config | {"trainer": {"accumulate_grad_batches": 3}}))
    sizes = {kind: size_of(tmp_path, kind) for kind in KINDS}
    rows = 10 * 4 * 3 * 2
    assert sizes == {"params": 7, "flops": 3e9 * rows, "tokens": 8 * rows, "loss": 2.0, "step": 10}
    config["data"] |= {"rows": "a.Sums"}  # of any length up to 8
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="no one length for all rows"):
        size_of(tmp_path, "tokens")
    weights = {"net.a": torch.zeros(3, 4), "net.steps": torch.zeros(1, dtype=torch.int64), "twin.a": torch.zeros(3, 4)}
    (tmp_path / "checkpoints").mkdir()
    torch.save({"state_dict": weights}, tmp_path / "checkpoints" / "last.ckpt")
    (tmp_path / "result.json").write_text("{}")
    assert size_of(tmp_path, "params") == 12


def table(tmp_path: Path, text: str, name: str = "table.csv") -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def test_a_table_of_hits(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [(1e6, 3), (4e6, 2), (16e6, 5), (64e6, 12), (256e6, 160)]
    text = "x,metric,n,k\n" + "".join(f"{x},exact_match,200,{k}\n" for x, k in rows)
    code, told, _ = report(capsys, table(tmp_path, text))
    assert code == 0 and shapes(told) == {"exact_match": "sharp"} and told["tasks"][0]["verdict"] == "sharp_unconfirmed"
    again = "".join(json.dumps({"x": x, "metric": "exact_match", "n": 200, "k": k}) + "\n" for x, k in rows)
    _, same, _ = report(capsys, table(tmp_path, again, "table.jsonl"))
    assert same["tasks"] == told["tasks"]


def test_a_table_of_values(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A loss that rises with size: inverse scaling, and one of two directions is refused."""
    head = "task,model,x,metric,value,low,high,higher\n"
    rows = [f"t,m{i},{10**i},loss,{1 + i / 5},{0.97 + i / 5},{1.03 + i / 5},false\n" for i in range(1, 6)]
    _, told, _ = report(
        capsys, table(tmp_path, head + "".join(rows) + "t,m6,1e6,loss,nan,1,2,false\nt,m,-1,loss,1,1,2,\n")
    )
    assert shapes(told) == {"loss": "inverse"} and told["tasks"][0]["verdict"] == "inverse"
    assert [line.split(": ", 1)[1] for line in told["problems"]] == [
        "value is nan; left out",
        "x is '-1'; it must be a number above 0; left out",
    ]
    rows[2] = rows[2].replace("false", "true")
    assert report(capsys, table(tmp_path, head + "".join(rows)))[0] == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("size,metric,n,k\n1,a,2,1\n", "has no column x"),
        ("x,metric,n,k\n1,a,2,3\n", "k is 3 of n 2"),
        ("x,metric,value\n1,a,0.5\n", "a value needs n, or low and high"),
        ("x,metric,value,n\n1,a,-3,100\n", "needs low and high"),
        ("", "has no column x"),
    ],
)
def test_a_table_that_cant_be_read(tmp_path: Path, capsys: pytest.CaptureFixture, text: str, said: str) -> None:
    code, _, error = report(capsys, table(tmp_path, text))
    assert code == 2 and said in error and error.count("\n") == 1


def test_parts_and_their_product(tmp_path: Path) -> None:
    """Two parts that are right on their own: the whole is their product; one that needs both at once isn't."""
    random = np.random.default_rng(0)
    for place in range(5):
        run = tmp_path / "runs" / str(place)
        run.mkdir(parents=True)
        (run / "result.json").write_text(json.dumps({"parameters": 10 ** (place + 3)}))
        chance = 0.2 + 0.18 * place
        rows = []
        for number in range(400):
            a, b = (bool(each) for each in random.random(2) < chance)
            one = {"id": number, "task": "alone", "correct": a and b, "parts": {"a": a, "b": b}}
            rows += [one, {**one, "task": "tied", "parts": {"a": a, "b": a}, "correct": a}]
        (run / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    alone, tied = findings(ladder.read([str(tmp_path / "runs" / "*")]))
    assert alone.composite.explains and not tied.composite.explains and "above it at" in tied.composite.text()
    assert alone.verdict.code == "smooth"


def test_intervals_of_hits() -> None:
    low, high = wilson(np.array([0.0, 0.5]), np.array([50, 50]))
    assert (
        low[0] == 0
        and high[0] == pytest.approx(0.0713, abs=1e-3)
        and (low[1], high[1]) == pytest.approx((0.366, 0.634), abs=1e-3)
    )
    assert zero_hits(np.array([50]))[0] == pytest.approx(0.0582, abs=1e-4)


def test_laws_find_what_was_planted() -> None:
    """A power law and a logistic with little noise: the law, its numbers, and the largest model from the others."""
    from alignlab.scaling.curve import Curve
    from alignlab.scaling.metrics import METRICS

    x, n = 10 ** np.linspace(5, 8, 7), np.full(7, 1000)
    names = tuple(map(str, x))
    loss = 3 * (x / 1e5) ** -0.2
    power = Curve("t", METRICS["brier"], x, loss, n, names, errors=np.full(7, 0.002))
    best = fits(power)[0]
    assert best.law.name == "power" and best.theta[0] == pytest.approx(0.2, abs=0.02)
    told = expected(power, 1e9)
    assert told.low <= 3 * 1e4**-0.2 <= told.high and told.value == pytest.approx(3 * 1e4**-0.2, rel=0.05)
    left = largest_left_out(power)
    assert left.inside and abs(left.error) < 0.01
    share = 0.9 / (1 + np.exp(-(np.log10(x) - 6.6) / 0.2))
    curve = Curve("t", METRICS["token_accuracy"], x, share, n, names, errors=np.full(7, 0.004))
    assert fits(curve)[0].law.name == "logistic" and shape(curve).name == "sharp"
    np.testing.assert_allclose(fits(curve)[0].at(x), share, atol=0.03)
    hill = Curve(
        "t", METRICS["token_accuracy"], x, 0.8 - (np.log10(x) - 6.5) ** 2 / 5, n, names, errors=np.full(7, 0.004)
    )
    assert fits(curve)[0].holds and not fits(hill)[0].holds and shape(hill).name == "inverted_u"
