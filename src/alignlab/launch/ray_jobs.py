"""Jobs of a sweep as tasks of a Ray cluster: each runs the training program as a process of its own on some node."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from alignlab.launch.environment import of_one_process
from alignlab.launch.processes import die_with_parent
from alignlab.launch.sweep import CONSOLE, Job

LOOK = 0.2  # seconds between two looks
_GIVEN_BY_RAY = ("CUDA_VISIBLE_DEVICES",)  # to a task, by the GPUs that it asked for


def connected(address: str | None) -> Any:
    """Ray, connected to a cluster: the one at `address` or in RAY_ADDRESS, else one of this machine alone that ends
    with this process.

    Raises:
        ValueError: ray isn't installed, or there is no cluster there.
    """
    try:
        import ray
    except ImportError:
        raise ValueError("hydra/launcher=ray needs ray: pip install 'alignlab[ray]'") from None
    if ray.is_initialized():
        return ray
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a job that asks for no GPU sees all, as elsewhere
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=None if address else False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"hydra.launcher.address={address}: no Ray cluster answers ({reason})") from error
    return ray


def run_job(job: Job, program: Sequence[str], cwd: str, env: Mapping[str, str], begun: bool) -> int:
    """What a task does: the program to its end, its output in console.log of the job's directory, which all nodes see.

    A cancelled task (`ray.cancel` raises KeyboardInterrupt in it) has the run save and end.

    Args:
        env: of the sweep's own process.
        begun: whether the job goes on with what is in its directory.

    Returns:
        The program's exit code; negative: a signal's number.
    """
    job.directory.mkdir(parents=True, exist_ok=True)
    given = {name: os.environ[name] for name in _GIVEN_BY_RAY if name in os.environ}
    with (job.directory / CONSOLE).open("ab") as console:
        process = subprocess.Popen(
            [sys.executable, *program, *job.arguments(begun)],
            cwd=cwd,
            env=of_one_process(env) | given,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    while process.poll() is None:
        try:
            time.sleep(LOOK)
        except KeyboardInterrupt:
            process.send_signal(signal.SIGTERM)
    return process.returncode
