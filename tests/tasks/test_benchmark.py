"""Every backend becomes a row, however it ends; one real comparison."""

import csv
import json
import signal
import sys
from pathlib import Path

from alignlab.launch.signals import Interrupted
from alignlab.tasks.benchmark import Benchmark
from language_job import job_of, printed
from served_model import write_language_model
from tiny_run import REPOSITORY

import pytest
from PIL import Image

# Stands in for infer.py where a process has to end in a certain way.
PROGRAM = """
import json, os, pathlib, signal, sys, time
words = dict(word.split("=", 1) for word in sys.argv[1:])
folder = pathlib.Path(words["output"].strip("'"))
def result(**values): (folder / "result.json").write_text(json.dumps(values))
backend = words["backend"]
if backend == "crash": os.kill(os.getpid(), signal.SIGSEGV)
if backend == "slow": time.sleep(60)
if backend == "absent":
    result(status="failed", reason="Unavailable: backend=absent can't run here: no GPU")
    sys.exit(2)
if backend == "unknown":
    print("error: backend=unknown: no such choice", file=sys.stderr)
    sys.exit(2)
(folder / "agreement.json").write_text("{}")
result(status="ok", metrics={"yardstick": "task.yardstick" in words, "batch_1_tokens_per_second": 7.0})
"""


def test_rows(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    names = ["crash", "absent", "one", "two dtype=bfloat16", "slow", "unknown"]
    task = Benchmark(names, batch_sizes=[1], minutes=0.03)
    job = job_of(tmp_path / "run", program=[sys.executable, str(tmp_path / "program.py")])
    found = task.run(None, job)
    assert found == {"measured": 2.0, "skipped": 1.0, "failed": 3.0}
    rows = {
        row["id"]: row for row in map(json.loads, (tmp_path / "run" / "predictions.jsonl").read_text().splitlines())
    }
    assert list(rows) == names
    assert rows["crash"]["error"].startswith("killed by SIGSEGV")
    assert (rows["absent"]["status"], rows["absent"]["error"]) == ("skipped", "backend=absent can't run here: no GPU")
    assert rows["slow"]["error"] == "took longer than minutes=0.03"
    assert rows["unknown"]["error"] == "backend=unknown: no such choice"
    assert not rows["one"]["yardstick"] and rows["two dtype=bfloat16"]["yardstick"], "the first that works"
    with (tmp_path / "run" / "benchmark.csv").open(newline="") as file:
        table = {row["backend"]: row for row in csv.DictReader(file)}
    assert table["one"]["batch_1_tokens_per_second"] == "7.0" and table["crash"]["batch_1_tokens_per_second"] == ""
    again = job_of(tmp_path / "run", program=[sys.executable, "nothing.py"], resumed=True)
    Benchmark(names, batch_sizes=[1], minutes=0.03).run(None, again)
    assert "one ..." not in printed(again) and "crash ..." in printed(again), "what was measured is kept"


def test_an_interruption_keeps_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    job = job_of(tmp_path / "run", program=[sys.executable, str(tmp_path / "program.py")])
    row = Benchmark.row

    def interrupted(self: Benchmark, entry: str, *more: object) -> dict:
        if entry == "two":
            raise KeyboardInterrupt
        return row(self, entry, *more)

    monkeypatch.setattr(Benchmark, "row", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Benchmark(["one", "two"], batch_sizes=[1]).run(None, job)
    assert len((tmp_path / "run" / "benchmark.csv").read_text().splitlines()) == 2


def test_whatever_ends_it_ends_the_backend_too(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import time\ntry:\n    print('started', flush=True)\n    time.sleep(60)\nfinally:\n    print('ended', flush=True)\n"
    )
    task, output = Benchmark(["one"]), tmp_path / "output.txt"

    def terminate(number: int, frame: object) -> None:
        raise Interrupted(signal.SIGTERM)

    before = signal.signal(signal.SIGALRM, terminate)
    signal.setitimer(signal.ITIMER_REAL, 1.5)
    try:
        with pytest.raises(Interrupted):
            task.start([sys.executable, str(tmp_path / "program.py")], output)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert "ended" in output.read_text() and "KeyboardInterrupt" in output.read_text()


def test_what_cannot_be_asked() -> None:
    with pytest.raises(ValueError, match="is empty"):
        Benchmark([])
    with pytest.raises(ValueError, match="names one twice"):
        Benchmark(["int8", "int8"])


@pytest.mark.slow  # three processes
def test_a_real_comparison(tmp_path: Path) -> None:
    folder = write_language_model(tmp_path / "model", positions=512)
    program = [sys.executable, str(REPOSITORY / "infer.py")]
    job = job_of(tmp_path / "run", program=program, settings=[f"model_path='{folder}'", "dtype='float32'"])
    sizes = {"batch_sizes": [1, 2], "prompt_tokens": 8, "new_tokens": 4, "repeats": 1}
    found = Benchmark(["transformers", "compiled"], **sizes).run(None, job)
    output = (tmp_path / "run" / "backends" / "compiled" / "output.txt").read_text()
    assert found == {"measured": 2.0, "skipped": 0.0, "failed": 0.0}, output
    yardstick, other = job.predictions.rows.values()
    assert "same_tokens" not in yardstick and other["same_tokens"] == 1.0
    assert other["largest_logprob_difference"] < 1e-4 and other["batch_2_tokens_per_second"] > 0
    assert "agreement with transformers" in printed(job)
    assert Image.open(tmp_path / "run" / "samples" / "benchmark.png").width > 800
