"""RewardMethod: it learns shares, ranks, stores mean, deviation and scale; adapters with their head."""

from functools import partial

from alignlab.losses.preference import bradley_terry
from alignlab.methods.reward import RewardMethod
from alignlab.models.language.lora import add_lora
from alignlab.models.language.new import encoder
from alignlab.models.language.reward import load_reward_model
from alignlab.systems.choosing import system_of
from alignlab.systems.method_system import MethodSystem
from tiny_language import NET, OPTIM, WORDS, fit, preference_batch, validated

import pytest
import torch

LENGTHS = [8, 6, 7, 9, 5, 7, 8, 6]


def make(**settings) -> MethodSystem:
    torch.manual_seed(0)
    return system_of(partial(RewardMethod, settings.pop("net", NET), **settings), vocabulary=WORDS, optim=OPTIM)


@pytest.mark.parametrize("net", [NET, partial(encoder, width=16, depth=1, heads=2, mlp_width=16, dropout=0.0)])
def test_it_learns_certain_pairs_and_every_parameter_learns(net):
    system, batch = make(net=net, pool="mean"), preference_batch(LENGTHS)
    losses = fit(system, 60, [batch])
    assert losses[-1] < 0.2 * losses[0]
    without = [n for n, p in system.net.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    # the bias of the head shifts all rewards alike and an unused head of a language model gives none
    assert [n for n in without if not n.endswith(("head.bias", "lm_head.weight", "key.bias"))] == []


def test_it_learns_shares_as_they_are():
    system, batch = make(), preference_batch(LENGTHS, share=0.75)
    fit(system, 150, [batch])
    first, second = system.eval()._rewards(batch)
    torch.testing.assert_close(torch.sigmoid(first - second), torch.full((4,), 0.75), rtol=0, atol=0.05)
    hard = make(soft_labels=False)
    hard.configure_model()
    rewards = hard._rewards(batch)
    torch.testing.assert_close(hard._target(batch), torch.ones(4))
    assert bradley_terry(*rewards, hard._target(batch)) != bradley_terry(*rewards, batch.share)


def test_validation_stores_mean_deviation_and_scale_and_changes_nothing_else():
    system, batches = make(), [preference_batch(LENGTHS, seed) for seed in range(4)]
    system.configure_model()
    before = {name: value.clone() for name, value in system.state_dict().items()}
    found = validated(system, batches)
    system.eval()
    rewards = torch.cat([torch.cat(system._rewards(batch)) for batch in batches])
    assert system.net.mean.item() == pytest.approx(rewards.mean().item(), abs=1e-5)
    assert system.net.std.item() == pytest.approx(rewards.std().item(), rel=1e-3)
    assert found["val/scale"] == pytest.approx(system.net.scale.item()) and 0 <= found["val/ece"] <= 1
    changed = {n for n, v in system.state_dict().items() if not torch.equal(before[n], v)}
    assert changed <= {"net.mean", "net.std", "net.scale"}


def test_export_of_an_adapter_with_its_head(tmp_path):
    pytest.importorskip("peft")
    system, batch = make(peft=partial(add_lora, rank=4)), preference_batch(LENGTHS)
    losses = fit(system, 60, [batch])
    assert losses[-1] < losses[0] - 0.1 and system.net.head.weight.requires_grad
    system.eval().export(tmp_path)
    again = load_reward_model(tmp_path)
    torch.testing.assert_close(again(batch.ids, batch.mask), system.net(batch.ids, batch.mask), rtol=1e-4, atol=1e-4)


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match=r"margin_weight=-1"):
        make(margin_weight=-1.0).configure_model()
    with pytest.raises(ValueError, match=r"pool=first"):
        make(pool="first").configure_model()
