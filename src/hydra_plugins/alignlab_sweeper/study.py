"""`python train.py -m study=X`: the trials that conf/study/X.yaml declares, each a job of the chosen launcher."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from alignlab.configs.command_line import arguments as forced
from alignlab.configs.command_line import without_force
from alignlab.files.foreign_yaml import yaml_text
from alignlab.files.result import Result
from alignlab.launch import run_lock
from alignlab.launch.processes import this_program
from alignlab.launch.sweep import Job, Row, finished

PATIENCE = 300.0  # seconds for trials of a killed study to save, which they do by themselves
HOPELESS = 3  # trials that crash before any other has ended


class StudySweeper(Sweeper):
    """Runs a study, or goes on with it: trials that have ended, well or not, are not repeated.

    Args:
        retry: trials that crashed or were killed are done again.
        declaration: what the study's file says; see `alignlab.studies.design.declaration`.
    """

    def __init__(self, retry: bool = False, **declaration: Any) -> None:
        self.retry = retry
        self._given = {
            key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for key, value in declaration.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.directory = Path(config.hydra.sweep.dir).resolve()

    def sweep(self, arguments: list[str]) -> Any:
        """Runs what is left of the study.

        Raises:
            ValueError: it can't be a study, or its directory holds another; the metric was never logged; all crash.
        """
        from alignlab.studies.design import points
        from alignlab.studies.design.declaration import declared
        from alignlab.studies.progress import Progress
        from alignlab.studies.trials import Record

        words = [word for word in without_force(arguments) if not word.startswith("study=")]
        _refuse_sweeps(words)
        self.study = declared(self._given, words)
        self._choice = next(word for word in arguments if word.startswith("study="))
        with run_lock.held(self.directory):
            OmegaConf.save(self.config, self.directory / "multirun.yaml")
            self.record = Record(self.directory, self.study, this_program())
            there = len(self.record.trials)
            with Progress(self.study, self.record.trials, points.total(self.study), self.directory) as self.progress:
                if self.study.sampler == "tpe":
                    self._ask_and_tell()
                else:
                    self._run({n: points.point(self.study, n) for n in range(points.total(self.study))})
            if there == len(self.record.trials):
                print(f"all {there} trials are there; more with hydra.sweeper.trials={2 * there}")

    def _ask_and_tell(self) -> None:
        from alignlab.studies.design.adaptive import proposed

        at_a_time = getattr(self.launcher, "n_jobs", None) or 1
        while (missing := self._unfinished(range(self.study.trials))) and (batch := missing[:at_a_time]):
            self._run(proposed(self.study, self.record.trials, batch))

    def _unfinished(self, numbers: Sequence[int]) -> list[int]:
        done = {n for n, trial in self.record.trials.items() if trial.ended}
        done -= {n for n, trial in self.record.trials.items() if self.retry and trial.status == "failed"}
        return [number for number in numbers if number not in done]

    def _run(self, chosen: dict[int, dict[str, Any]]) -> None:
        """Runs the trials among the given that haven't ended yet, in any order and as many at a time as the launcher
        likes.
        """
        self._chosen = chosen
        todo = []
        for number in self._unfinished(list(chosen)):
            job = Job(number, tuple(self.study.overrides(chosen[number])), self.directory / str(number))
            if not self._adopted(job):
                todo.append((number, [self._choice, *forced(job.overrides)]))
        if not todo:
            return
        if hasattr(self.launcher, "launch_numbered"):
            self.launcher.watch = self._take_down
            self.launcher.launch_numbered(todo)
            return
        for number, overrides in todo:  # a launcher of others numbers its jobs from the first on
            words = [word for word in overrides if not word.startswith("study=")]
            self.launcher.launch([words], initial_job_idx=number)
            job = Job(number, tuple(without_force(words)), self.directory / str(number))
            self._take_down(job, finished(job, None, 0.0))

    def _adopted(self, job: Job) -> bool:
        """Takes down a trial that has ended although this study's program was gone; waits for one that still saves."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                run_lock.refuse_if_busy(job.directory)
                break
            except run_lock.Busy:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        result = Result.read(job.directory)
        if result is None or result.status not in ("ok", "diverged") or not _same(job):
            return False
        if job.number in self.record.trials and self.record.trials[job.number].status == "failed":
            return False
        self._take_down(job, finished(job, None, 0.0))
        return True

    def _take_down(self, job: Job, row: Row) -> None:
        """A line of trials.jsonl for a trial that has ended.

        Raises:
            ValueError: it ended well without the metric, or nothing but crashes so far.
        """
        from alignlab.studies.outcome import outcome, refuse_unlogged
        from alignlab.studies.reading.tables import logged

        told = logged(job.directory)
        if row.status == "ok":
            refuse_unlogged(self.study.metric, told)
        trial = outcome(self.study, job.number, self._chosen[job.number], row.status, row.reason, told)
        trial.steps, trial.seconds, trial.directory = row.steps, row.seconds, job.directory.name
        self.record.add(trial)
        self.progress.show(trial)
        ended = [each for each in self.record.trials.values() if each.ended]
        if len(ended) >= HOPELESS and all(each.status == "failed" for each in ended):
            raise ValueError(
                f"the first {len(ended)} trials all crashed, trial {trial.trial} with: {trial.reason}; "
                "mend it and go on with the same command and hydra.sweeper.retry=true"
            )


def _refuse_sweeps(words: Sequence[str]) -> None:
    for override in OverridesParser.create().parse_overrides(list(words)):
        if override.is_sweep_override():
            raise ValueError(
                f"{override.input_line}: a study varies what its file says; put {override.key_or_group} there"
            )


def _same(job: Job) -> bool:
    """Whether a run's directory is this job's, by the command line that it has recorded."""
    import yaml

    try:
        recorded = yaml.safe_load(yaml_text(job.directory / ".hydra" / "overrides.yaml"))
        words = without_force(word for word in recorded if not word.startswith("resume="))
    except (ValueError, TypeError, AttributeError):
        return False
    return words == list(job.overrides)
