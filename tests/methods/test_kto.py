"""KTO: its loss by hand and as trl's, mismatched responses measure the KL, the start is the reference, it learns."""

import json
from functools import partial
from pathlib import Path

from alignlab.data.language.batches import TokenStore
from alignlab.data.language.labelled import LabelledRows
from alignlab.data.language.modules import LanguageDataModule
from alignlab.data.language.movies import MovieLabels
from alignlab.data.language.own_rows import OwnRows
from alignlab.data.language.rated_reviews import rated_reviews
from alignlab.data.language.rendering import Rendered
from alignlab.methods.kto import KtoMethod, kto
from alignlab.methods.step import Step
from alignlab.models.language.lora import add_lora
from alignlab.systems.choosing import system_of
from alignlab.types.language import LabelledBatch
from peer_agreement import agree
from tiny_language import NET, OPTIM, WORDS, fit, validated

import numpy as np
import pytest
import torch

LENGTHS, PROMPTS, LABELS = [8, 6, 7, 9, 5, 7], [3, 2, 3, 4, 1, 2], [True, False, True, True, False, False]


def rows(lengths=LENGTHS, prompts=PROMPTS, labels=LABELS) -> LabelledRows:
    g = torch.Generator().manual_seed(0)
    texts = [
        Rendered(torch.randint(3, WORDS.size, (n,), generator=g).tolist(), [i >= p for i in range(n)])
        for n, p in zip(lengths, prompts, strict=True)
    ]
    return LabelledRows(TokenStore(texts), np.array(labels), None, max_length=64)


def labelled(numbers=range(6)) -> LabelledBatch:
    return rows().__getitems__(list(numbers))


def make(**settings) -> KtoMethod:
    torch.manual_seed(0)
    return KtoMethod(NET, vocabulary=WORDS, **settings)


def moved(method: KtoMethod) -> KtoMethod:
    """The start made worse than the policy, so that neither rewards nor KL are 0."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in method._start._copy.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return method


def test_the_loss_by_hand():
    ratio, label = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([True, False, False])
    found = kto(ratio, label, torch.tensor(0.25), beta=0.2, desirable_weight=1.5, undesirable_weight=2.0)
    sigma = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    wanted = [1.5 * (1 - sigma(0.2 * 0.25)), 2.0 * (1 - sigma(0.2 * 1.25)), 2.0 * (1 - sigma(0.2 * -1.75))]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float))


def test_a_batch_has_each_prompt_with_the_response_of_the_row_before():
    batch, source = labelled(), rows()
    for row in range(6):
        before, (own, other) = (row - 1) % 6, (source.store.ids(row), source.store.ids((row - 1) % 6))
        wanted = [*own[: PROMPTS[row]].tolist(), *other[PROMPTS[before] :].tolist()]
        assert batch.other_ids[row, : len(wanted)].tolist() == wanted and not batch.other_ids[row, len(wanted) :].any()
        width = batch.other_ids.shape[1]
        places = batch.other_target[batch.other_target // width == row] % width
        assert places.tolist() == list(range(PROMPTS[row], len(wanted)))
    assert batch.label.tolist() == LABELS


def test_loss_and_gradient_are_those_of_trl(tmp_path: Path):
    trl = pytest.importorskip("trl", reason="an extra")
    datasets = pytest.importorskip("datasets")
    from alignlab.data.language.tokenizer import built_in_tokenizer, vocabulary_of

    tokenizer = built_in_tokenizer(400)
    texts = [
        {"prompt": "the film is", "completion": " good and long", "label": True},
        {"prompt": "a plot", "completion": " that nobody could follow at all", "label": False},
        {"prompt": "see it", "completion": " now", "label": True},
    ]
    weights = {"desirable_weight": 1.3, "undesirable_weight": 0.7}
    method = KtoMethod(NET, vocabulary=vocabulary_of(tokenizer), beta=0.2, **weights).double()
    method._start._copy.double()
    moved(method)
    args = trl.KTOConfig(
        output_dir=str(tmp_path), use_cpu=True, report_to=[], per_device_train_batch_size=3, bf16=False, beta=0.2,
        gradient_checkpointing=False, **weights,
    )  # fmt: skip
    trainer = trl.KTOTrainer(
        method.net,
        method._start._copy,
        args=args,
        train_dataset=datasets.Dataset.from_list(texts),
        processing_class=tokenizer,
    )
    inputs = trainer.data_collator([trainer.train_dataset[i] for i in range(3)])
    wanted = trainer.compute_loss(method.net, dict(inputs))
    target, other = ((inputs[f"{kind}completion_mask"] > 0).flatten().nonzero().squeeze(1) for kind in ("", "KL_"))
    label = torch.tensor([bool(x) for x in inputs["label"]])
    ids = inputs["input_ids"]
    batch = LabelledBatch(ids, ids > 0, target, label, torch.arange(3), inputs["KL_input_ids"], other)
    method.train(method.net.training)
    output = method(batch)
    agree("kto", output.loss, wanted, (method.net.lm_head.weight,))
    assert output.metrics["kl"] > 0 and output.metrics["kl"].item() == pytest.approx(
        trainer._metrics["train"]["kl"][0], rel=1e-5
    )


@pytest.mark.parametrize("peft", [None, partial(add_lora, rank=4)])
def test_the_start_is_the_reference_and_good_texts_become_likelier(peft):
    torch.manual_seed(0)
    system = system_of(partial(KtoMethod, NET, peft=peft, beta=0.5), vocabulary=WORDS, optim=OPTIM)
    losses = fit(system, 40, [labelled()])
    assert losses[0] == pytest.approx(0.5, abs=1e-3), "nothing has moved: sigma(0), whatever the label"
    assert losses[-1] < 0.8 * losses[0]
    before = {name: value.clone() for name, value in system.state_dict().items()}
    assert not any("_start" in name or "_copy" in name for name in before)
    metrics = validated(system, [labelled([0, 1, 2]), labelled([3, 4, 5])])
    assert metrics["val/accuracy"] == 1.0 and metrics["val/reward_desirable"] > 0 > metrics["val/reward_undesirable"]
    assert all(torch.equal(before[name], value) for name, value in system.state_dict().items())


def test_accumulated_batches_add_up_but_for_their_kl():
    halves = [labelled([0, 1, 2]), labelled([3, 4, 5])]
    method = moved(make(beta=1.0))
    outputs = [method(batch, Step(0, index, 2, lambda: halves)) for index, batch in enumerate(halves)]
    apart = [method(batch) for batch in halves]
    torch.testing.assert_close(sum(o.loss for o in outputs), sum(o.loss for o in apart) / 2)
    rewards = torch.cat([method._terms(batch)[1] for batch in halves])
    good = torch.cat([batch.label for batch in halves])
    torch.testing.assert_close(sum(o.metrics["reward_desirable"] for o in outputs), rewards[good].mean())
    torch.testing.assert_close(sum(o.metrics["reward_undesirable"] for o in outputs), rewards[~good].mean())


def test_own_labels_pairs_and_reviews(tmp_path: Path):
    single = [{"prompt": f"q{i}", "completion": f" a{i}", "label": i % 2} for i in range(20)]
    pairs = [{"prompt": f"p{i}", "chosen": " yes", "rejected": " no"} for i in range(20)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, single + pairs)))
    settings = {"batch_size": 4, "vocab_size": 400, "val_share": 0.2}
    made = LanguageDataModule(OwnRows, path=str(tmp_path / "rows.jsonl"), kind="label", **settings)
    made.setup()
    assert sum(len(made.rows[split]) for split in ("train", "val")) == 20 + 40
    batch = next(iter(made.train_dataloader()))
    assert isinstance(batch, LabelledBatch)
    for split in ("train", "val"):
        for i in range(len(made.rows[split])):
            text = made.tokenizer.decode(made.rows[split].store.ids(i))
            if "yes" in text or "no" in text.split():
                assert made.rows[split].labels[i] == ("yes" in text)
    for bad, message in (("perhaps", "label is the text 'perhaps'"), (None, "no column label")):
        (tmp_path / "bad.jsonl").write_text(json.dumps({"prompt": "q", "completion": "a", "label": bad}))
        with pytest.raises(ValueError, match=f"line 1: {message}"):
            LanguageDataModule(OwnRows, path=str(tmp_path / "bad.jsonl"), kind="label", **settings).setup()
    (tmp_path / "same.jsonl").write_text("\n".join(json.dumps(row | {"label": True}) for row in single))
    with pytest.raises(ValueError, match="every label is true; KTO needs both"):
        LanguageDataModule(OwnRows, path=str(tmp_path / "same.jsonl"), kind="label", **settings).setup()
    good = np.sum(rated_reviews().part("val", 0, 0.1).means >= 0.5)
    reviews = LanguageDataModule(MovieLabels, vocab_size=600)
    reviews.setup()
    assert reviews.rows["val"].labels.sum() == good and not reviews.rows["val"].labels.all()


@pytest.mark.parametrize("name", ["beta", "desirable_weight", "undesirable_weight"])
def test_bad_settings_are_named(name: str):
    with pytest.raises(ValueError, match=f"{name} is 0; it must be above 0"):
        make(**{name: 0})


def test_a_batch_of_one_has_no_other_response():
    with pytest.raises(ValueError, match="batch_size is 1; KTO compares"):
        make()(labelled([0]))
