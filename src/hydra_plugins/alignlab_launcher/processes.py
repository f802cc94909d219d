"""hydra/launcher=processes: every job of a sweep is a process of its own with a directory of its own."""

import logging
import sys
from collections.abc import Sequence

from alignlab.launch.processes import Running, run_jobs
from alignlab.launch.sweep import Job
from hydra_plugins.alignlab_launcher.jobs import SweepJobs, SweepLauncher

log = logging.getLogger(__name__)


class ProcessLauncher(SweepLauncher):
    """Runs a sweep's jobs on this machine.

    Ranks that a job starts see the job's command line and never the sweep's; a job that fails is a row of the table,
    and its objective nan.

    Args:
        n_jobs: how many at a time.
        gpus_per_job: every job sees that many GPUs of its own; None: all jobs see all.
        resume: go on with a sweep directory: jobs that are ok stay, interrupted ones go on, others are done again.
    """

    def __init__(self, n_jobs: int = 1, gpus_per_job: int | None = None, resume: bool = False) -> None:
        for name, value in (("n_jobs", n_jobs), ("gpus_per_job", 1 if gpus_per_job is None else gpus_per_job)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"hydra.launcher.{name}={value!r} must be a whole number of at least 1")
        self.n_jobs, self.gpus_per_job, self.resume = n_jobs, gpus_per_job, resume

    def run(self, todo: Sequence[Job], jobs: SweepJobs) -> None:
        def ended(each: Running, code: int) -> None:
            jobs.ended(each.job, code, each.began, each.stopped)

        log.info("%d jobs, %d at a time, in %s", len(todo), self.n_jobs, jobs.directory)
        run_jobs(todo, [sys.executable, *jobs.program()], ended, jobs.begun, self.n_jobs, self.gpus_per_job)
