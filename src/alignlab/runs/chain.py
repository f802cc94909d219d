"""Several trainings in a row from one command: `python train.py experiment=rlhf_movies`.

Each stage is a training of its own in its own process and in a folder of the run directory, so that it can be looked at, resumed or repeated alone.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from alignlab.cost.measured import Clock, peak_memory_bytes
from alignlab.files.result import Result
from alignlab.runs.record import git_revision, versions

CONTROL = ("experiment", "stages", "hydra", "run_name", "objective")


def run_stages(
    stages: Mapping[str, Sequence[str] | None],
    run_dir: Path,
    command_line: Sequence[str],
    program: Path,
    *,
    seed: int = 0,
    objective: str | None = None,
) -> Result:
    """Runs the stages in order and leaves their metrics as `<stage>/<metric>` in the result.json of the run directory.

    Args:
        stages: name -> overrides of `train.py`; `{run}` in them is the run directory. A stage that is None is left out.
        command_line: overrides that all stages get besides, but for those that choose the stages themselves.
        program: train.py.
    Raises:
        ValueError: a stage failed; its own error was already printed.
        KeyboardInterrupt: a stage was interrupted.
    """
    clock = Clock()
    result = Result(seed=seed, git_revision=git_revision(), versions=versions())
    passed_on = [o for o in command_line if o.lstrip("+~").split("=")[0].split(".")[0] not in CONTROL]
    try:
        for name, overrides in stages.items():
            if overrides is None:
                continue
            folder = run_dir / name
            words = [override.replace("{run}", str(run_dir)) for override in overrides]
            print(f"== {name}: {' '.join(words)}", flush=True)
            code = _run([sys.executable, str(program), *words, *passed_on, f"hydra.run.dir={folder}"])
            _take_over(result, name, folder, code)
        result.status = "ok"
        if objective is not None:
            result.objective = result.metrics[objective]
    except (ValueError, KeyboardInterrupt) as error:
        result.status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        result.reason = str(error) or "stopped by Ctrl-C"
        raise
    finally:
        result.seconds = clock.seconds()
        result.peak_memory_bytes = max(result.peak_memory_bytes, peak_memory_bytes())
        result.write(run_dir)
    print(f"all stages done in {result.seconds:.0f} s: {run_dir}", flush=True)
    return result


def _run(command: list[str]) -> int:
    """Exit code of a process that gets this one's output; Ctrl-C reaches both and is waited for."""
    process = subprocess.Popen(command)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)


def _take_over(result: Result, name: str, folder: Path, code: int) -> None:
    file = folder / "result.json"
    found = (
        json.loads(file.read_text(encoding="utf-8"))
        if file.exists()
        else {"status": "failed", "reason": f"exit code {code}"}
    )
    result.metrics |= {f"{name}/{key}": value for key, value in found.get("metrics", {}).items() if value is not None}
    result.steps += found.get("steps", 0)
    result.peak_memory_bytes = max(result.peak_memory_bytes, found.get("peak_memory_bytes", 0))
    if found["status"] == "interrupted":
        raise KeyboardInterrupt
    if code or found["status"] != "ok":
        raise ValueError(f"stage {name} {found['status']}: {found.get('reason')}")
