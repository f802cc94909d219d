"""ORPO: its odds by hand and as trl's, responses alone are learnt, accumulated batches are one, it learns."""

import math
from functools import partial

from alignlab.methods.orpo import OrpoMethod, log_odds, odds_ratio
from alignlab.models.language.lora import add_lora
from alignlab.systems.choosing import system_of
from peer_agreement import agree
from tiny_language import NET, OPTIM, WORDS, fit, loop, preference_batch, validated

import pytest
import torch

LENGTHS = [8, 6, 7, 9, 5, 7]


def make(**settings) -> OrpoMethod:
    torch.manual_seed(0)
    return OrpoMethod(NET, vocabulary=WORDS, **settings)


def test_the_odds_by_hand():
    p = torch.tensor([0.2, 0.9, 0.5], dtype=torch.double)
    torch.testing.assert_close(log_odds(p.log()), (p / (1 - p)).log())
    wanted = math.log(1 + (0.9 / 0.1) / (0.2 / 0.8))
    assert odds_ratio(p[0].log(), p[1].log()).item() == pytest.approx(wanted)
    sure = torch.tensor([-1e-12, 0.0, -80.0], requires_grad=True)
    log_odds(sure).sum().backward()
    assert torch.isfinite(log_odds(sure)).all() and torch.isfinite(sure.grad).all()


def test_loss_and_gradient_are_those_of_trl():
    orpo = pytest.importorskip("trl.experimental.orpo", reason="an extra")
    method, batch = make(beta=0.3).double(), preference_batch(LENGTHS)
    trainer = type("Settings", (), {"beta": 0.3, "accelerator": type("Device", (), {"device": "cpu"})})()
    logits = method.net(batch.ids).logits
    labels = torch.full_like(batch.ids, -100).flatten()
    labels[batch.target] = batch.ids.flatten()[batch.target]
    labels = labels.view_as(batch.ids)
    means = orpo.ORPOTrainer.get_batch_logps(logits, labels, average_log_prob=True)
    odds, *_, log_ratio = orpo.ORPOTrainer.odds_ratio_loss(trainer, means[batch.first], means[batch.second])
    chosen = labels[batch.first][:, 1:]  # trl counts the prompts' tokens too; the paper and we the responses'
    sft = torch.nn.functional.cross_entropy(logits[batch.first][:, :-1].flatten(0, 1), chosen.flatten())
    wanted = sft - odds.mean()
    output = method(batch)
    agree("orpo", output.loss, wanted, (method.net.lm_head.weight,))
    torch.testing.assert_close(output.metrics["log_odds_ratio"], log_ratio.double(), rtol=1e-5, atol=1e-6)


def test_a_loop_without_a_trainer_learns_and_every_parameter_gets_a_gradient():
    method, batch = make(beta=1.0), preference_batch(LENGTHS)
    losses, output = loop(method, batch, 30)
    assert losses[-1] < 0.5 * losses[0] and output.metrics["accuracy"] == 1.0


@pytest.mark.parametrize("peft", [None, partial(add_lora, rank=4)])
def test_under_the_trainer_it_learns_and_validation_changes_nothing(peft):
    torch.manual_seed(0)
    system = system_of(partial(OrpoMethod, NET, peft=peft), vocabulary=WORDS, optim=OPTIM)
    losses = fit(system, 30, [preference_batch(LENGTHS)])
    assert losses[-1] < losses[0]
    before = {name: value.clone() for name, value in system.state_dict().items()}
    metrics = validated(system, [preference_batch(LENGTHS)])
    assert metrics["val/loss"] == pytest.approx(metrics["val/sft_loss"] + 0.1 * _odds(system), rel=1e-4)
    assert all(torch.equal(before[name], value) for name, value in system.state_dict().items())


def _odds(system) -> float:
    with torch.no_grad():
        return system._terms(preference_batch(LENGTHS))[:, 0].mean().item()


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="beta is 0; it must be above 0"):
        make(beta=0)
