"""SimPO: its loss by hand and against trl's, lengths don't count, it learns without a reference, accumulated batches are one, a loop without a trainer."""

import math
from functools import partial

from alignlab.methods.simpo import SimpoMethod, simpo
from alignlab.methods.step import Step
from alignlab.models.language.lora import add_lora
from alignlab.systems.choosing import system_of
from peer_agreement import agree
from tiny_language import NET, OPTIM, WORDS, fit, loop, preference_batch, validated

import pytest
import torch

LENGTHS = [8, 6, 7, 9, 5, 7]


def make(**settings) -> SimpoMethod:
    torch.manual_seed(0)
    return SimpoMethod(NET, vocabulary=WORDS, **settings)


def test_the_loss_by_hand():
    first, second = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0])
    wanted = [math.log(1 + math.exp(-2.5 * (0.5 - 0.4))), math.log(1 + math.exp(-2.5 * (-1.0 - 0.4)))]
    torch.testing.assert_close(simpo(first, second, beta=2.5, margin_ratio=0.4), torch.tensor(wanted))


def test_rewards_are_means_over_the_responses_tokens():
    method, batch = make(beta=3.0), preference_batch(LENGTHS)
    logits = method.net.eval()(batch.ids).logits.log_softmax(-1)
    rewards = [
        3.0 * sum(logits[row, t - 1, batch.ids[row, t]].item() for t in range(3, length)) / (length - 3)
        for row, length in enumerate(LENGTHS)
    ]
    _, first, second = method._terms(batch).unbind(1)
    torch.testing.assert_close(torch.cat([first, second]), torch.tensor(rewards), rtol=1e-4, atol=1e-4)


def test_loss_and_gradient_are_those_of_trl(tmp_path):
    cpo = pytest.importorskip("trl.experimental.cpo", reason="an extra")
    datasets = pytest.importorskip("datasets")
    from alignlab.data.language.tokenizer import built_in_tokenizer, vocabulary_of
    from alignlab.models.language.new import llama
    from alignlab.types.language import PreferenceBatch

    tokenizer = built_in_tokenizer(400)
    tokenizer.padding_side = "right"
    pairs = [
        {"prompt": "the film is", "chosen": " good and long", "rejected": " bad"},
        {"prompt": "a plot", "chosen": " of wit", "rejected": " that nobody could follow at all"},
        {"prompt": "see it", "chosen": " now", "rejected": " never"},
    ]
    net = partial(llama, width=32, depth=2, heads=4, context_length=64)
    method = SimpoMethod(net, beta=2.5, margin_ratio=0.6, vocabulary=vocabulary_of(tokenizer)).double()
    args = cpo.CPOConfig(
        output_dir=str(tmp_path), use_cpu=True, report_to=[], per_device_train_batch_size=3, bf16=False, max_length=48,
        gradient_checkpointing=False, loss_type="simpo", beta=2.5, simpo_gamma=1.5, cpo_alpha=0.0,
    )  # fmt: skip
    data = datasets.Dataset.from_list(pairs)
    trainer = cpo.CPOTrainer(method.net, args=args, train_dataset=data, processing_class=tokenizer)
    rows = [trainer.train_dataset[i] for i in range(3)]
    inputs = trainer.data_collator(rows)
    wanted, metrics = trainer.get_batch_loss_metrics(method.net, inputs)
    joined = trainer.concatenated_inputs(inputs, padding_value=tokenizer.pad_token_id)
    ids, labels = joined["concatenated_input_ids"], joined["concatenated_labels"]
    target = (labels != -100).flatten().nonzero().squeeze(1)
    first, ones = torch.arange(3), torch.ones(3)
    mask = joined["concatenated_attention_mask"].bool()
    batch = PreferenceBatch(ids, mask, target, first, first + 3, ones, ones, torch.arange(6))
    output = method(batch)
    agree("simpo", output.loss, wanted, (method.net.lm_head.weight,))
    assert output.metrics["reward_margin"].item() == pytest.approx(
        float(metrics["rewards/chosen"]) - float(metrics["rewards/rejected"]), abs=1e-6
    )


def test_a_loop_without_a_trainer_learns_and_every_parameter_gets_a_gradient():
    method, batch = make(margin_ratio=1.0), preference_batch(LENGTHS)
    losses, output = loop(method, batch, 30)
    assert losses[-1] < 0.2 * losses[0] and output.metrics["accuracy"] == 1.0


def test_accumulated_batches_are_one_large_batch():
    whole = preference_batch(LENGTHS)
    parts = [whole._replace(first=whole.first[rows], second=whole.second[rows]) for rows in (slice(0, 2), slice(2, 3))]
    gradients = []
    for batches in ([whole], parts):
        method = make()
        for index, batch in enumerate(batches):
            method(batch, Step(0, index, len(batches), lambda b=batches: b)).loss.backward()
        gradients.append([p.grad for p in method.net.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("peft", [None, partial(add_lora, rank=4)])
def test_under_the_trainer_it_learns_and_validation_changes_nothing(peft):
    torch.manual_seed(0)
    system = system_of(partial(SimpoMethod, NET, peft=peft), vocabulary=WORDS, optim=OPTIM)
    losses = fit(system, 30, [preference_batch(LENGTHS)])
    assert losses[-1] < 0.9 * losses[0]
    before = {name: value.clone() for name, value in system.state_dict().items()}
    metrics = validated(system, [preference_batch(LENGTHS)])
    assert metrics["val/accuracy"] == 1.0 and metrics["val/reward_margin"] > 0
    assert all(torch.equal(before[name], value) for name, value in system.state_dict().items())


@pytest.mark.parametrize("settings", [{"beta": 0.0}, {"margin_ratio": -0.1}])
def test_bad_settings_are_named(settings):
    (name, value), *_ = settings.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        make(**settings)
