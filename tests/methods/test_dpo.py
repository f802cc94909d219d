"""DpoMethod: log 2 at the start, the reference never moves, remembered or not, it learns, resumes with what it remembers."""

from functools import partial

from alignlab.losses.preference import DpoTerms
from alignlab.methods.dpo import DpoMethod
from alignlab.methods.language_models.responses import response_log_probs
from alignlab.models.language.lora import add_lora
from alignlab.models.language.trunk import hidden_states
from alignlab.systems.choosing import system_of
from alignlab.systems.method_system import MethodSystem
from alignlab.types.language import PreferenceBatch
from tiny_language import NET, OPTIM, WORDS, fit, preference_batch, validated

import pytest
import torch

LENGTHS = [8, 6, 7, 9, 5, 7]
LORA = partial(add_lora, rank=4)


def make(**settings) -> MethodSystem:
    torch.manual_seed(0)
    return system_of(partial(DpoMethod, NET, **settings), vocabulary=WORDS, optim=OPTIM)


def terms(system: MethodSystem, batch: PreferenceBatch) -> DpoTerms:
    return system._terms(batch, "train", response_log_probs(system.net, batch))


@pytest.mark.parametrize("peft", [None, LORA])
@pytest.mark.parametrize("kind", ["dpo", "ipo", "cdpo", "robust"])
def test_every_kind_starts_at_zero_rewards_and_learns(kind, peft):
    smoothing = 0.1 if kind in ("cdpo", "robust") else 0.0
    system, batch = make(kind=kind, peft=peft, label_smoothing=smoothing), preference_batch(LENGTHS)
    system.configure_model()
    loss, first, second = terms(system, batch)
    assert first.abs().max() < 1e-6 and second.abs().max() < 1e-6
    assert loss.mean().item() == pytest.approx(25.0 if kind == "ipo" else 0.6931, rel=1e-3)
    losses = fit(system, 30, [batch])
    assert losses[-1] < 0.9 * losses[0]
    _, first, second = terms(system, batch)
    assert (first > second).all()


@pytest.mark.parametrize("peft", [None, LORA])
def test_the_reference_never_moves(peft):
    system, batch = make(peft=peft, cache_reference=False), preference_batch(LENGTHS)
    system.configure_model()
    before = system.reference_log_probs(batch, "train")
    fit(system, 10, [batch])
    torch.testing.assert_close(system.reference_log_probs(batch, "train"), before, rtol=1e-6, atol=1e-5)
    assert not torch.allclose(response_log_probs(system.net, batch), before, atol=1e-2)
    assert not any(name.startswith(("_frozen", "_start")) for name in system.state_dict())


def test_remembered_references_are_those_computed_and_texts_of_splits_are_told_apart():
    batches = [preference_batch(LENGTHS, seed) for seed in (0, 1)]
    remembering, computing = fit(make(), 6, batches), fit(make(cache_reference=False), 6, batches)
    assert remembering == pytest.approx(computing, rel=1e-5)
    system = make()
    system.configure_model()
    train = system.reference_log_probs(batches[0], "train")
    moved = batches[1]._replace(index=batches[0].index)
    assert not torch.allclose(system.reference_log_probs(moved, "val"), train)
    checkpoint: dict = {}
    system.on_save_checkpoint(checkpoint)
    other = make()
    other.configure_model()
    other.on_load_checkpoint(checkpoint)
    assert other._known == system._known


def test_the_response_alone_counts():
    system, batch = make(), preference_batch(LENGTHS)
    system.configure_model()
    model = system.net
    logits = model.lm_head(hidden_states(model, batch.ids)).log_softmax(-1)
    wanted = [
        sum(logits[row, t - 1, batch.ids[row, t]] for t in range(3, length)).item()
        for row, length in enumerate(LENGTHS)
    ]
    torch.testing.assert_close(response_log_probs(model, batch), torch.tensor(wanted), rtol=1e-4, atol=1e-4)


def test_validation_logs_means_and_changes_nothing():
    system, batches = make(), [preference_batch(LENGTHS, 3)]
    system.configure_model()
    before = {name: value.clone() for name, value in system.state_dict().items()}
    found = validated(system, batches)
    assert found["val/loss"] == pytest.approx(0.6931, abs=1e-3)
    assert all(torch.equal(before[name], value) for name, value in system.state_dict().items())


def test_the_sft_term_keeps_what_is_preferred_likely():
    batch, likelihood = preference_batch(LENGTHS), {}
    for weight in (0.0, 1.0):
        system = make(beta=1.0, sft_weight=weight)
        fit(system, 40, [batch])
        likelihood[weight] = response_log_probs(system.net, batch)[batch.first].mean().item()
        measured = validated(system, [batch])
        assert ("val/sft_loss" in measured) == bool(weight)
        if weight:  # one mean over the tokens of preferred responses, a text of two pairs counted twice
            nats, tokens = system._of_preferred(response_log_probs(system.net, batch), batch)
            assert measured["val/sft_loss"] == pytest.approx((nats.sum() / tokens.sum()).item(), rel=1e-4)
            assert measured["val/loss"] > measured["val/sft_loss"]
    assert likelihood[1.0] > likelihood[0.0] + 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.0}, r"beta is 0\.0"),
        ({"sft_weight": -1.0}, r"sft_weight is -1\.0"),
        ({"label_smoothing": 0.5}, r"label_smoothing is 0\.5"),
        ({"kind": "cdpo"}, "cdpo and robust need it above 0"),
        ({"label_smoothing": 0.1}, "dpo and ipo don't take it"),
        ({"kind": "ipo", "soft_labels": True}, r"soft_labels=true"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings).configure_model()
