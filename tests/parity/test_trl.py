"""SFT, reward and DPO losses against trl 1.12.0's own trainers on the batches that these trainers make."""

from functools import partial
from types import SimpleNamespace

from alignlab.data.language.rendering import Renderer
from alignlab.data.language.tokenizer import built_in_tokenizer, vocabulary_of
from alignlab.losses.preference import bradley_terry
from alignlab.methods.dpo import DpoMethod
from alignlab.methods.sft import SftMethod
from alignlab.models.language.new import llama
from alignlab.types.language import PreferenceBatch, TokenBatch

import pytest
import torch

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

TOKENIZER = built_in_tokenizer(400)
WORDS = vocabulary_of(TOKENIZER)
NET = partial(llama, width=32, depth=2, heads=4, context_length=64, vocabulary=WORDS)
PAIRS = [
    {"prompt": "the film is", "chosen": " good and long", "rejected": " bad"},
    {"prompt": "a plot", "chosen": " of wit", "rejected": " that nobody could follow at all"},
    {"prompt": "see it", "chosen": " now", "rejected": " never"},
]


def arguments(kind: type, folder, **settings):
    return kind(
        output_dir=str(folder), use_cpu=True, report_to=[], per_device_train_batch_size=3, bf16=False, max_length=48,
        gradient_checkpointing=False, **settings,
    )  # fmt: skip


def first_batch(trainer) -> dict:
    return next(iter(torch.utils.data.DataLoader(trainer.train_dataset, 3, collate_fn=trainer.data_collator)))


def test_sft_loss(tmp_path):
    torch.manual_seed(0)
    rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in PAIRS]
    trainer = trl.SFTTrainer(
        NET(),
        args=arguments(trl.SFTConfig, tmp_path),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=TOKENIZER,
    )
    inputs = first_batch(trainer)
    wanted = trainer.compute_loss(trainer.model, dict(inputs))
    method = SftMethod(lambda vocabulary: trainer.model, vocabulary=WORDS)
    labelled = inputs["labels"] != -100
    target = labelled.flatten().nonzero().squeeze(1)
    batch = TokenBatch(inputs["input_ids"], labelled.long(), labelled.long(), target, packed=False)
    torch.testing.assert_close(-method.log_probs(batch).mean(), wanted, rtol=1e-6, atol=1e-6)
    for row, ids in zip(rows, trainer.train_dataset["input_ids"], strict=True):  # the same rendering, but for its BOS
        ours = Renderer(TOKENIZER, 48).example(row["prompt"], row["completion"])
        assert ours.ids[1:] == [i for i in ids if i != WORDS.bos_id]


@pytest.mark.parametrize(
    ("kind", "theirs", "smoothing", "sft_weight"),
    [
        ("dpo", "sigmoid", 0.0, 0.0),
        ("ipo", "ipo", 0.0, 0.0),
        ("robust", "robust", 0.2, 0.0),
        ("dpo", "sigmoid", 0.0, 0.5),
    ],
)
def test_dpo_losses(tmp_path, kind, theirs, smoothing, sft_weight):
    torch.manual_seed(0)
    policy, before = NET().double(), NET().double()
    losses = (
        {"loss_type": [theirs, "sft"], "loss_weights": [1.0, sft_weight]} if sft_weight else {"loss_type": [theirs]}
    )
    args = arguments(trl.DPOConfig, tmp_path, **losses, label_smoothing=smoothing, beta=0.3)
    trainer = trl.DPOTrainer(
        policy, before, args=args, train_dataset=datasets.Dataset.from_list(PAIRS), processing_class=TOKENIZER
    )
    inputs = first_batch(trainer)
    trainer.model.train()
    wanted = trainer._compute_loss(trainer.model, dict(inputs), False)
    settings = {"kind": kind, "beta": 0.3, "label_smoothing": smoothing, "sft_weight": sft_weight}
    method = DpoMethod(lambda vocabulary: policy, vocabulary=WORDS, **settings)
    method._start._copy = before
    target = inputs["completion_mask"].bool().flatten().nonzero().squeeze(1)
    first = torch.arange(3)
    batch = PreferenceBatch(
        inputs["input_ids"],
        inputs["attention_mask"].bool(),
        target,
        first,
        first + 3,
        torch.ones(3),
        torch.zeros(3),
        torch.arange(6),
    )
    output = method(batch)
    torch.testing.assert_close(output.loss, wanted, rtol=1e-6, atol=1e-6)
    chosen = output.metrics["chosen_reward"].item()
    assert trainer._metrics["train"]["rewards/chosen"][-1] == pytest.approx(chosen, abs=1e-6)
    mine, other = (torch.autograd.grad(x, policy.lm_head.weight)[0] for x in (output.loss, wanted))
    torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("margin", [None, torch.tensor([0.5, 0.0, -1.0])])
@pytest.mark.parametrize("centering", [None, 0.01])
def test_reward_loss(margin, centering):
    rewards = torch.randn(6, generator=torch.Generator().manual_seed(0))

    class Answers(torch.nn.Module):  # the net is the same on both sides; what it says is all that the loss sees
        def forward(self, **_):
            return SimpleNamespace(logits=rewards[:, None])

    accelerator = SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x)
    trainer = SimpleNamespace(
        model=Answers(), args=SimpleNamespace(center_rewards_coefficient=centering), accelerator=accelerator,
        _metrics={"train": {k: [] for k in ("min_reward", "mean_reward", "max_reward", "accuracy", "margin")}}, _total_train_tokens=0,
    )  # fmt: skip
    inputs = {"attention_mask": torch.ones(6, 2)} | ({"margin": margin} if margin is not None else {})
    wanted = trl.RewardTrainer.compute_loss(trainer, trainer.model, inputs)
    found = bradley_terry(rewards[:3], rewards[3:], torch.ones(3), margin=margin, centering=centering or 0.0)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
