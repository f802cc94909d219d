"""A study while it runs: a table on a terminal, a line a trial elsewhere, the best trials at the end."""

import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from alignlab.studies.design.declaration import Study
from alignlab.studies.outcome import kind
from alignlab.studies.trials import Trial

BEST, LAST = 5, 3  # rows of the table


class Progress:
    """Shows trials as they end.

    Args:
        trials: number -> trial, the record's own.
        total: how many there will be.
    """

    def __init__(self, study: Study, trials: Mapping[int, Trial], total: int, directory: Path) -> None:
        self._study, self._trials, self._total, self._directory = study, trials, total, directory
        self._before, self._began = len(trials), time.monotonic()
        self._live: Any = None

    def __enter__(self) -> Self:
        from rich.live import Live

        if sys.stdout.isatty():
            self._live = Live(self.table(), auto_refresh=False)
            self._live.__enter__()
        return self

    def __exit__(self, *failure: object) -> None:
        from rich.console import Console

        if self._live is not None:
            self._live.__exit__(*failure)
        elif self._trials:
            Console(highlight=False).print(self.table())
        if self._trials:
            print(f"study directory  {self._directory}\nread it with     alignlab study report {self._directory}")

    def show(self, trial: Trial) -> None:
        """Takes a trial that has just ended into the table."""
        if self._live is not None:
            self._live.update(self.table(trial), refresh=True)
        else:
            print(f"trial {trial.trial}: {told(trial, self._study)}; {self._state()}", flush=True)

    def table(self, newest: Trial | None = None) -> Any:
        """The best trials, and the newest."""
        from rich.table import Table

        keys = [each for each in dict.fromkeys(p.key for p in self._study.parameters)]
        table = Table("trial", *keys, self._study.metric.name, "steps", "seconds", title=self._state())
        ended = sorted(self._trials.values(), key=lambda t: _rank(t, self._study))
        for each in ended[:BEST]:
            values = [_short(each.point.get(key, "")) for key in keys]
            table.add_row(str(each.trial), *values, told(each, self._study), str(each.steps), f"{each.seconds:.0f}")
        if newest is not None and newest not in ended[:BEST]:
            values = [_short(newest.point.get(key, "")) for key in keys]
            table.add_section()
            table.add_row(str(newest.trial), *values, told(newest, self._study), str(newest.steps), "")
        return table

    def _state(self) -> str:
        ended = [each for each in self._trials.values() if each.ended]
        done, bad = len(ended), sum(each.status != "ok" for each in ended)
        mine = len(self._trials) - self._before
        left = (time.monotonic() - self._began) / mine * (self._total - done) if mine else math.nan
        rest = f", about {left / 60:.0f} min left" if mine and done < self._total else ""
        return f"{done} of {self._total} trials, {bad} infeasible{rest}"


def told(trial: Trial, study: Study) -> str:
    """A trial's value, or why it has none."""
    if trial.status == "ok":
        return "no value" if trial.value is None else f"{study.metric.name} {trial.value:.4g}"
    return f"{trial.status}: {kind(trial) if trial.ended else 'goes on later'}"


def _rank(trial: Trial, study: Study) -> tuple[bool, float]:
    good = trial.status == "ok" and trial.value is not None
    return not good, study.metric.loss(trial.value) if good else 0.0


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
