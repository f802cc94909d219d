"""hydra/launcher=ray: every job of a sweep is a task of a Ray cluster."""

import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignlab.launch.environment import of_one_process
from alignlab.launch.processes import start
from alignlab.launch.signals import Inbox, Interrupted
from alignlab.launch.sweep import Job
from hydra_plugins.alignlab_launcher.jobs import SweepJobs, SweepLauncher

log = logging.getLogger(__name__)

LOOK = 0.2  # seconds between two looks
CONNECT = 5.0  # seconds that a cluster has to answer
_GIVEN_BY_RAY = ("CUDA_VISIBLE_DEVICES",)  # to a task, by the GPUs that it asked for


class RayLauncher(SweepLauncher):
    """Gives a sweep's jobs to a Ray cluster, waits for them and collects their results; Ctrl-C has those that run save
    and end.

    All nodes see the sweep's directory and have the same environment. A job whose node is lost is a row with its
    reason; the same command goes on with it.

    Args:
        address: of the cluster (`auto`, `ray://host:10001`, `host:6379`); None: RAY_ADDRESS, else this machine alone.
        cpus_per_job: cores that a job takes; a job begins where so many are free.
        gpus_per_job: likewise; a share (0.5) puts several jobs on one.
        resources: other resources by name, as the cluster's nodes declare them.
        n_jobs: how many at a time at most; None: as many as there is room for.
        resume: go on with a sweep directory; see `ProcessLauncher`.
    """

    def __init__(
        self,
        address: str | None = None,
        cpus_per_job: float = 1,
        gpus_per_job: float = 0,
        resources: dict[str, float] | None = None,
        n_jobs: int | None = None,
        resume: bool = False,
    ) -> None:
        if n_jobs is not None and n_jobs < 1:
            raise ValueError(f"hydra.launcher.n_jobs={n_jobs} must be at least 1")
        for name, value in (("cpus_per_job", cpus_per_job), ("gpus_per_job", gpus_per_job)):
            if value < 0:
                raise ValueError(f"hydra.launcher.{name}={value} must not be negative")
        self.address, self.n_jobs, self.resume = address, n_jobs, resume
        self.needs = {"num_cpus": cpus_per_job, "num_gpus": gpus_per_job, "resources": dict(resources or {})}

    def run(self, todo: Sequence[Job], jobs: SweepJobs) -> None:
        ray = connected(self.address)
        self._check_room(ray)
        task = ray.remote(**self.needs, max_retries=0)(run_job)
        waiting, running, env, cancelled = list(todo), {}, dict(os.environ), False
        log.info("%d jobs for Ray, in %s", len(todo), jobs.directory)
        with Inbox() as inbox:
            inbox.deferred = True
            while (waiting and not inbox.received) or running:
                while waiting and not inbox.received and (self.n_jobs is None or len(running) < self.n_jobs):
                    job = waiting.pop(0)
                    jobs.begun(job)
                    given = task.remote(job, jobs.program(), os.getcwd(), env)
                    running[given] = (job, time.monotonic())
                if inbox.received and not cancelled:
                    cancelled = True
                    for given in running:
                        ray.cancel(given, force=False)
                for given in ray.wait(list(running), timeout=1.0)[0]:
                    job, began = running.pop(given)
                    jobs.ended(job, _exit_code(ray, given), began, cancelled)
            if inbox.received:
                raise Interrupted(inbox.received)

    def _check_room(self, ray: Any) -> None:
        """Raises ValueError where no node of the cluster could ever take a job: Ray would wait for one."""
        wanted = {"CPU": self.needs["num_cpus"], "GPU": self.needs["num_gpus"], **self.needs["resources"]}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(node.get(name, 0) >= value for name, value in wanted.items()) for node in nodes):
            most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in wanted}
            raise ValueError(f"hydra/launcher=ray: a job asks for {wanted}, and no node has more than {most}")


def _exit_code(ray: Any, given: Any) -> int | None:
    """None if Ray can't say."""
    try:
        return ray.get(given)
    except ray.exceptions.RayError as error:  # a node lost, or cancelled before it began
        log.debug("no exit code: %s", error)
        return None


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
    place = address or os.environ.get("RAY_ADDRESS")
    if (found := re.fullmatch(r"(?:ray://)?([^/:]+):(\d+)", place or "")) is not None:
        try:  # Ray itself would try for minutes
            socket.create_connection((found[1], int(found[2])), timeout=CONNECT).close()
        except OSError as error:
            raise ValueError(f"hydra.launcher.address={place}: no Ray cluster answers ({error})") from error
    os.environ.setdefault(
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
    )  # a job that asks for no GPU sees all, as elsewhere
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=None if place else False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"hydra.launcher.address={place}: no Ray cluster answers ({reason})") from error
    return ray


def run_job(job: Job, program: Sequence[str], cwd: str, env: Mapping[str, str]) -> int:
    """What a task does: the program to its end, its output in console.log of the job's directory, which all nodes see.

    A cancelled task (`ray.cancel` raises KeyboardInterrupt in it) has the run save and end.

    Args:
        env: of the sweep's own process.

    Returns:
        The program's exit code; negative: a signal's number.
    """
    given = {name: os.environ[name] for name in _GIVEN_BY_RAY if name in os.environ}
    process = start(job, [sys.executable, *program], of_one_process(env) | given, Path(cwd))
    while process.poll() is None:
        try:
            time.sleep(LOOK)
        except KeyboardInterrupt:
            process.send_signal(signal.SIGTERM)
    return process.returncode
