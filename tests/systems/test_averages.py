"""Means over several steps, of what not every step has."""

from functools import partial

import recorder
from alignlab.methods.sft import SftMethod
from alignlab.systems.choosing import system_of
from alignlab.types.language import Sources
from tiny_language import NET, OPTIM, WORDS, token_batch

import pytest
import torch


def test_a_source_is_averaged_since_the_last_logged_step_and_over_a_resume() -> None:
    """Four steps of which one holds a row of the rare source, in one go and stopped after two."""
    batches = [
        token_batch([9, 12], seed)._replace(sources=Sources(torch.tensor([0, int(seed == 1)]), ("web", "rare")))
        for seed in range(4)
    ]

    def system():
        torch.manual_seed(0)
        return system_of(partial(SftMethod, NET), vocabulary=WORDS, optim=partial(OPTIM, lr=1e-12))

    def logged(of, steps, batches, every):
        return recorder.fit(of, steps, batches, log_every_n_steps=every)[0].callback_metrics

    whole = logged(system(), 4, batches, 4)
    alone = logged(system(), 1, [batches[1]], 1)
    assert whole["train/loss_rare"] == pytest.approx(float(alone["train/loss_rare"]), rel=1e-6)
    assert torch.isfinite(whole["train/loss_web"]) and whole["train/loss_web"] != alone["train/loss_web"]

    first, checkpoint = system(), {}
    assert "train/loss_rare" not in logged(first, 2, batches[:2], 4)
    first.on_save_checkpoint(checkpoint)
    second = system()
    second.configure_model()
    second.on_load_checkpoint(checkpoint)
    resumed = logged(second, 2, batches[2:], 2)
    for name in ("train/loss_rare", "train/loss_web"):
        assert resumed[name] == whole[name]
