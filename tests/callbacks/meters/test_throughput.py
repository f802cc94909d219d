"""Throughput counts samples of all ranks and not the time of validation."""

import time
from types import SimpleNamespace

from alignlab.callbacks.meters.throughput import Throughput, num_samples

import pytest
import torch


def test_validation_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    logged = []
    module = SimpleNamespace(device=torch.device("cpu"), log=lambda name, value: logged.append((name, value)))
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(_batches_that_stepped=0), _should_accumulate=lambda: False)
    trainer = SimpleNamespace(world_size=2, log_every_n_steps=4, fit_loop=loop)
    batch = (torch.zeros(5, 3),)
    throughput = Throughput(warmup_steps=1)
    for step in range(5):
        throughput.on_train_batch_start(trainer, module, batch, step)
        now += 100.0 if step == 0 else 2.0
        loop.epoch_loop._batches_that_stepped = step
        throughput.on_train_batch_end(trainer, module, None, batch, step)
        if step == 2:
            throughput.on_validation_start(trainer, module)
            now += 50.0
    throughput.on_train_end(trainer, module)
    assert throughput.seconds == 8.0, "four steps of two seconds; neither warm-up nor validation"
    assert throughput.samples_per_second == 4 * 5 * 2 / 8.0
    assert logged == [("train/samples_per_second", 3 * 5 * 2 / 6.0)]


def test_samples_in_a_batch() -> None:
    assert num_samples({"image": torch.zeros(3, 2)}) == num_samples(((torch.zeros(3), torch.zeros(9)),)) == 3
