"""SFT, reward and DPO losses against trl's own trainers (1.12.0; 1.16.0 too: docs/fidelity.md) on the batches that these trainers make."""

from functools import partial
from types import SimpleNamespace

from alignlab.data.language.rendering import Renderer
from alignlab.data.language.tokenizer import built_in_tokenizer, vocabulary_of
from alignlab.losses.preference import bradley_terry
from alignlab.methods.dpo import DpoMethod
from alignlab.methods.sft import SftMethod
from alignlab.models.language.new import llama
from alignlab.types.language import PreferenceBatch, TokenBatch
from peer_agreement import agree

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


class InDouble(torch.nn.Module):
    """What TRL 1.16's DPO asks of a model, whose log-probabilities TRL itself takes in float32 whatever the model's dtype."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, labels, **_):
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits[:, :-1]
        log_p, target = logits.log_softmax(-1), labels[:, 1:]
        found = log_p.gather(-1, target.clamp_min(0)[..., None]).squeeze(-1).masked_fill(target < 0, 0.0)
        entropy, right = -(log_p.exp() * log_p).sum(-1), log_p.argmax(-1) == target
        return SimpleNamespace(log_probs=found, entropy=entropy, mean_logits=logits.mean(-1), is_top1=right)


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
    agree("sft", -method.log_probs(batch).mean(), wanted, (trainer.model.lm_head.weight,))
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
    theirs_now = trainer.model
    if tuple(map(int, trl.__version__.split(".")[:2])) >= (1, 13):
        theirs_now, trainer.ref_model = InDouble(trainer.model), InDouble(before)
    wanted = trainer._compute_loss(theirs_now, dict(inputs), False)
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
    agree(f"{kind}, sft weight {sft_weight}", output.loss, wanted, (policy.lm_head.weight,))
    chosen = output.metrics["chosen_reward"].item()
    assert trainer._metrics["train"]["rewards/chosen"][-1] == pytest.approx(chosen, abs=1e-6)


@pytest.mark.parametrize("margin", [None, torch.tensor([0.5, 0.0, -1.0])])
@pytest.mark.parametrize("centering", [None, 0.01])
def test_reward_loss(margin, centering):
    rewards = torch.randn(6, generator=torch.Generator().manual_seed(0)).requires_grad_()

    class Answers(torch.nn.Module):  # the net is the same on both sides; what it says is all that the loss sees
        def forward(self, **_):
            return SimpleNamespace(logits=rewards[:, None])

    accelerator = SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x)
    trainer = SimpleNamespace(
        model=Answers(), args=SimpleNamespace(center_rewards_coefficient=centering), accelerator=accelerator,
        _metrics={"train": {k: [] for k in ("min_reward", "mean_reward", "max_reward", "accuracy", "margin")}}, _total_train_tokens=0,
        _tp_size=1,
    )  # fmt: skip
    inputs = {"attention_mask": torch.ones(6, 2, dtype=torch.long)} | ({"margin": margin} if margin is not None else {})
    wanted = trl.RewardTrainer.compute_loss(trainer, trainer.model, inputs)
    found = bradley_terry(rewards[:3], rewards[3:], torch.ones(3), margin=margin, centering=centering or 0.0)
    agree(f"reward, margin {margin is not None}, centering {centering}", found, wanted, (rewards,))
