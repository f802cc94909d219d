"""Runs jobs on the pretend device: `python -m pretend_cuda.worker JOBS.json`; a result file for each, as each is done."""

import json
import sys
import time
import traceback
from pathlib import Path

from pretend_cuda import log, stub

stub.install()  # before torch
from pretend_cuda import device, torch_cuda, training  # noqa: E402, F401  isort:skip


def main() -> None:
    """Every job that has no result yet."""
    jobs = json.loads(Path(sys.argv[1]).read_text())
    training.prepare()
    for job in jobs:
        file = Path(job["file"])
        if not file.exists():
            file.with_suffix(".part").write_text(json.dumps(done(job)))
            file.with_suffix(".part").rename(file)


def done(job: dict) -> dict:
    """What a job gave (`value`), how it failed (`error`), and its log."""
    log.LOG.clear()
    begun = time.perf_counter()
    value, error = None, None
    try:
        if job["call"] is not None:
            module, name = job["call"].split(":")
            function = getattr(__import__(module, fromlist=[name]), name)
            value = function(Path(job["folder"]), **job["arguments"])
        else:
            result = training.train(Path(job["folder"]), job["overrides"])
            value = {"status": result.status, "reason": result.reason, "metrics": result.metrics}
    except Exception as failure:
        traceback.print_exc()
        error = f"{type(failure).__name__}: {failure}"
    finally:
        device.waited()
    print(f"== {job['name']}: {time.perf_counter() - begun:.1f} s")
    rows = [[*key, count] for key, count in log.LOG.items()]
    return {"value": value, "error": error, "rows": rows}


if __name__ == "__main__":
    main()
