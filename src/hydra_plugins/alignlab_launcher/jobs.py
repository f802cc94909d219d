"""From Hydra's overrides to jobs, and from their rows back to what a sweeper expects; the same for all launchers."""

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from alignlab.configs.check import ConfigError
from alignlab.configs.command_line import without_force
from alignlab.launch import run_lock
from alignlab.launch.processes import this_program
from alignlab.launch.sweep import Job, Row, Sweep, finished, left_behind, objectives, prepared
from alignlab.runs import kinds


class SweepLauncher(Launcher):
    """A launcher whose jobs are processes of their own, wherever they run; `run` says where.

    Attributes:
        resume: go on with a sweep directory: jobs that are ok stay, interrupted ones go on, others are done again.
        watch: is told of every job that has ended; a sweeper that sets it keeps its own record of what is done.
    """

    resume: bool
    watch: Callable[[Job, Row], None] | None = None
    _jobs: "SweepJobs"

    @abstractmethod
    def run(self, todo: Sequence[Job], jobs: "SweepJobs") -> None:
        """Runs jobs to their ends; tells `jobs.begun` before and `jobs.ended` after each."""

    def setup(self, **state: Any) -> None:
        self._jobs = SweepJobs(**state, resume=self.resume)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        return self.launch_numbered([(initial_job_idx + i, overrides) for i, overrides in enumerate(job_overrides)])

    def launch_numbered(self, numbered: Sequence[tuple[int, Sequence[str]]]) -> Sequence[JobReturn]:
        """The same for jobs with any numbers."""
        todo = self._jobs.begin(numbered, self.watch)
        try:
            self.run(todo, self._jobs)
        except BaseException:
            self._jobs.interrupted()
            raise
        return self._jobs.returns()


class SweepJobs:
    """The jobs of one sweep, over all calls of its launcher.

    Raises:
        ValueError: the directory holds a sweep already and `resume` isn't set, or another process works in it.
    """

    def __init__(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig, resume: bool) -> None:
        self._context, self._config, self._resume = hydra_context, config, resume
        self.directory = Path(config.hydra.sweep.dir).resolve()
        self._sweep: Sweep | None = None
        self._earlier: Sweep | None = None
        self._batch: list[tuple[Job, DictConfig]] = []
        self._watch: Callable[[Job, Row], None] | None = None
        self._lock = ExitStack()  # open as long as the process lives

    def begin(
        self, numbered: Sequence[tuple[int, Sequence[str]]], watch: Callable[[Job, Row], None] | None = None
    ) -> list[Job]:
        """The jobs of a batch that are still to be done, their configs checked before any begins."""
        setup_globals()
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        self._watch = watch
        self._batch = [self._job(number, list(overrides)) for number, overrides in numbered]
        self._check()
        if self._sweep is None:
            self._open()
        return [job for job, _ in self._batch if watch is not None or not self._done(job)]

    def begun(self, job: Job) -> None:
        """Prepares a job's directory, right before it begins."""
        prepared(job, self._earlier.rows.get(job.number) or left_behind(job))
        print(f"job {job.number} begins: {' '.join(job.overrides) or 'as it is'}", flush=True)

    def ended(self, job: Job, code: int | None, began: float, stopped: bool) -> None:
        """Takes down what became of a job."""
        row = finished(job, code, time.monotonic() - began, stopped)
        self._sweep.add(row)
        objective = "" if row.objective is None else f", objective {row.objective:.6g}"
        reason = "" if row.reason is None else f" ({row.reason})"
        if self._watch is not None:
            return self._watch(job, row)
        print(f"job {job.number} {row.status}{reason}: {row.steps} steps, {row.seconds:.0f} s{objective}", flush=True)
        return None

    def interrupted(self) -> None:
        """The table so far, for a sweep that doesn't come to its end."""
        if self._sweep is not None and self._sweep.rows:
            if self._watch is not None:
                return print(f"go on with the same command and hydra.sweep.dir={self.directory}")
            self._sweep.show()
            print(f"go on with the same command and hydra.launcher.resume=true hydra.sweep.dir={self.directory}")

    def returns(self) -> list[JobReturn]:
        """What the sweeper gets. A job that failed counts as completed with nan: the others go on."""
        rows = [self._sweep.rows[job.number] for job, _ in self._batch]
        given = []
        for (job, cfg), objective in zip(self._batch, objectives(rows), strict=True):
            result = JobReturn(
                overrides=list(job.overrides), working_dir=str(job.directory), status=JobStatus.COMPLETED
            )
            result.hydra_cfg = OmegaConf.create({"hydra": cfg.hydra})
            result.return_value = objective
            given.append(result)
        return given

    def program(self) -> list[str]:
        """What comes between the interpreter and a job's own arguments."""
        return this_program()[1:]

    def _job(self, number: int, overrides: list[str]) -> tuple[Job, DictConfig]:
        cfg = self._context.config_loader.load_sweep_config(self._config, overrides)
        with open_dict(cfg):
            cfg.hydra.job.num, cfg.hydra.job.id = number, str(number)
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(cfg)
        directory = self.directory / str(cfg.hydra.sweep.subdir)
        HydraConfig.instance().cfg = before
        of_sweep = ("hydra.", "study=")
        words = tuple(without_force(each for each in overrides if not each.startswith(of_sweep)))
        return Job(number, words, directory), cfg

    def _check(self) -> None:
        """Raises ConfigError with the problems of all jobs, each once, with the swept values that cause it."""
        swept = {
            override.key_or_group
            for override in OverridesParser.create().parse_overrides(list(self._config.hydra.overrides.task))
            if override.is_sweep_override()
        }
        causes: dict[str, str] = {}
        for job, cfg in self._batch:
            task = cfg.copy()
            with open_dict(task):
                del task["hydra"]
            try:
                kinds.of(task).checked(task, job.overrides, job.directory)
            except ConfigError as error:
                values = " ".join(each for each in job.overrides if each.partition("=")[0].lstrip("+") in swept)
                for problem in error.problems:
                    causes.setdefault(problem, values)
        if causes:
            raise ConfigError([f"{what} ({values})" if values else what for what, values in causes.items()])

    def _open(self) -> None:
        earlier = Sweep.read(self.directory)
        if earlier.rows and not self._resume and self._watch is None:
            raise ValueError(
                f"hydra.sweep.dir={self.directory} holds a sweep of {len(earlier.rows)} jobs; "
                "go on with hydra.launcher.resume=true or choose another directory"
            )
        self._lock.enter_context(run_lock.held(self.directory))
        self._earlier = earlier
        self._sweep = Sweep(self.directory, dict(earlier.rows) if self._watch is not None else {})

    def _done(self, job: Job) -> bool:
        row = self._earlier.rows.get(job.number)
        if row is None or row.status != "ok" or not row.same_job(job):
            return False
        self._sweep.add(row)
        print(f"job {job.number} is there already: {row.overrides or 'as it is'}", flush=True)
        return True
