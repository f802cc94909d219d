"""A run that waits for its data says so, once; one that doesn't says nothing."""

import logging
import time
from types import SimpleNamespace

from alignlab.callbacks.meters.data_wait import DataWait, line

import pytest
import torch


def steps(monkeypatch: pytest.MonkeyPatch, waits: float, count: int, seconds: float = 30.0) -> None:
    """Steps of one second, `waits` of which for data; the first three wait much longer, and a validation lies between."""
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    loader = SimpleNamespace(seconds_waited=0.0, num_workers=1)
    trainer = SimpleNamespace(train_dataloader=loader, is_global_zero=True)
    callback = DataWait(seconds=seconds)
    callback.log = print  # as Lightning does with every callback
    for step in range(count):
        loader.seconds_waited += 9.0 if step < 3 else waits
        now += 9.0 if step < 3 else waits
        callback.on_train_batch_start(trainer, None, (torch.zeros(64, 2),), step)
        now += 1 - waits
        callback.on_train_batch_end(trainer, None, None, None, step)  # there is no module to log to
        if step == 5:
            callback.on_validation_start(trainer, None)
            now += 1000.0
            callback.on_validation_end(trainer, None)
    callback.on_train_end(trainer, None)


@pytest.mark.parametrize(("waits", "count", "lines"), [(0.5, 60, 1), (0.5, 25, 1), (0.1, 60, 0), (0.5, 10, 0)])
def test_only_a_run_that_waits_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, waits: float, count: int, lines: int
) -> None:
    with caplog.at_level(logging.WARNING):
        steps(monkeypatch, waits, count)
    assert len(caplog.messages) == lines
    assert not lines or caplog.messages[0].startswith(("49%", "50%", "48%"))


def test_what_would_help() -> None:
    assert "num_workers=1 makes them beside it" in line(0.5, 20, 64, 0, 8)
    said = line(0.5, 20, 64, 2, 8)
    assert "steps of 20 ms would take 10 ms" in said and "num_workers=4" in said
    assert "the loader makes 3.2e+03 samples/s, the net could take 6.4e+03" in said
    assert "all 2 cores" in line(0.5, 20, 64, 1, 2)
