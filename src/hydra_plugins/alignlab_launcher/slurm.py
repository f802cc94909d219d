"""hydra/launcher=slurm: every job of a sweep is a Slurm job whose tasks are the run's ranks."""

import logging
import os
import time
from collections.abc import Sequence
from typing import Any

from alignlab.launch.signals import Inbox, Interrupted
from alignlab.launch.slurm import SlurmTask, executor
from alignlab.launch.sweep import Job
from hydra_plugins.alignlab_launcher.jobs import SweepJobs, SweepLauncher

log = logging.getLogger(__name__)


class SlurmLauncher(SweepLauncher):
    """Submits a sweep's jobs through submitit, waits for them and collects their results; Ctrl-C cancels what isn't
    done.

    A job that is preempted or runs out of time saves, goes back into the queue and resumes in its directory.

    Args:
        tasks_per_node: ranks on a node; one a GPU.
        timeout_min: time limit of a job in minutes.
        signal_delay_s: seconds before the limit at which the run is told to save.
        max_num_timeout: how often a job that ran out of time may begin again.
        array_parallelism: jobs at a time.
        setup: shell lines before srun, e.g. `module load cuda`.
        additional_parameters: further options of sbatch, name -> value.
        cluster: `slurm`, or `local` to try it without.
        poll_s: seconds between two looks at the queue.
        resume: go on with a sweep directory; see `ProcessLauncher`.
    """

    def __init__(
        self,
        partition: str | None = None,
        account: str | None = None,
        qos: str | None = None,
        nodes: int = 1,
        tasks_per_node: int = 1,
        gpus_per_node: int | None = None,
        cpus_per_task: int | None = None,
        mem_gb: float | None = None,
        timeout_min: int = 60,
        signal_delay_s: int = 120,
        max_num_timeout: int = 20,
        array_parallelism: int = 64,
        setup: Sequence[str] | None = None,
        additional_parameters: dict[str, Any] | None = None,
        cluster: str = "slurm",
        poll_s: float = 5.0,
        resume: bool = False,
    ) -> None:
        both = {
            "nodes": nodes,
            "tasks_per_node": tasks_per_node,
            "gpus_per_node": gpus_per_node,
            "cpus_per_task": cpus_per_task,
            "mem_gb": mem_gb,
            "timeout_min": timeout_min,
        }
        slurm = {
            "partition": partition,
            "account": account,
            "qos": qos,
            "signal_delay_s": signal_delay_s,
            "array_parallelism": array_parallelism,
            "setup": list(setup) if setup else None,
            "additional_parameters": dict(additional_parameters) if additional_parameters else None,
        }
        self.settings = {name: value for name, value in both.items() if value is not None}
        self.settings |= {f"slurm_{name}": value for name, value in slurm.items() if value is not None}
        self.max_num_timeout, self.cluster, self.poll_s, self.resume = max_num_timeout, cluster, poll_s, resume

    def run(self, todo: Sequence[Job], jobs: SweepJobs) -> None:
        submit = executor(self.cluster, jobs.directory / "submitit" / "%j", self.settings, self.max_num_timeout)
        for job in todo:
            jobs.begun(job)
        submitted = _submitted(submit, [SlurmTask(job, jobs.program(), os.getcwd(), job.begun) for job in todo])
        log.info("%d jobs submitted, logs in %s", len(submitted), jobs.directory / "submitit")
        self._collect(dict(zip(todo, submitted, strict=True)), jobs)

    def _collect(self, waiting: dict[Job, Any], jobs: SweepJobs) -> None:
        began = time.monotonic()
        with Inbox() as inbox:
            inbox.deferred = True
            cancelled = False
            while waiting:
                if inbox.received and not cancelled:
                    cancelled = True
                    for submitted in waiting.values():
                        submitted.cancel(check=False)
                for job, submitted in [pair for pair in waiting.items() if pair[1].done()]:
                    del waiting[job]
                    jobs.ended(job, _exit_code(submitted), began, cancelled)
                time.sleep(self.poll_s if waiting else 0)
            if inbox.received:
                raise Interrupted(inbox.received)


def _submitted(submit: Any, tasks: Sequence[Any]) -> list[Any]:
    """One array of jobs; each task object is the function itself, so that submitit finds its `checkpoint`."""
    if not tasks:
        return []
    with submit.batch():
        return [submit.submit(task) for task in tasks]


def _exit_code(submitted: Any) -> int | None:
    """The largest exit code of a job's tasks; None if submitit can't say."""
    try:
        return max(submitted.results())
    except Exception as error:  # whatever the job or submitit has stumbled over; the row says what result.json says
        log.debug("no exit code of job %s: %s", submitted.job_id, error)
        return None
