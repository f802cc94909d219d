"""TRL's GRPO and RLOO (1.12 and 1.16) on one awkward batch, values and gradients: their trainers, with a table in the place of a model."""

from pathlib import Path

from alignlab.losses.distillation import distillation_loss
from alignlab.losses.grpo import group_advantages, leave_one_out, overlong_penalty
from alignlab.methods.rlhf.objective import Objective
from peer_agreement import agree
from peer_batch import (
    GROUP,
    LENGTHS,
    LONGEST,
    SCORES,
    TEMPERATURE,
    WORDS,
    log_probs,
    logits,
    make_batch,
    noisy_advantage,
    our_loss,
    preset,
    states,
)
from tiny_policy import make_tokenizer, save_model

import pytest
import torch

trl = pytest.importorskip("trl")
pytestmark = pytest.mark.slow
NET, T = make_batch()
MASK = T.mask.float()
PLAIN = {
    "loss_type": "dapo",
    "beta": 0.0,
    "epsilon_low": 0.2,
    "epsilon_high": 0.2,
    "importance_sampling_level": "token",
    "delta": None,
}


def trainer_of(folder: Path, kind: str):
    from datasets import Dataset

    class OnTheTable(getattr(trl, f"{kind}Trainer")):
        def _get_per_token_logps_and_entropies(self, *_, **__):
            p = logits(NET, T).log_softmax(-1)
            return log_probs(NET, T), -(p.exp() * p).sum(-1), None

    config = getattr(trl, f"{kind}Config")(
        output_dir=str(folder), per_device_train_batch_size=len(LENGTHS), num_generations=GROUP, report_to="none",
        max_completion_length=LONGEST, use_cpu=True, bf16=False, model_init_kwargs={"dtype": "float32"}, beta=0.1,
    )  # fmt: skip
    data = Dataset.from_dict({"prompt": ["the film was", "a", "not"] * 4})
    found = OnTheTable(
        model=save_model(folder / "model"), reward_funcs=lambda completions, **_: [0.0] * len(completions), args=config,
        processing_class=make_tokenizer(), train_dataset=data,
    )  # fmt: skip
    found.current_gradient_accumulation_steps = 1
    found.model.train()
    return found


@pytest.fixture(scope="module")
def grpo(tmp_path_factory: pytest.TempPathFactory):
    return trainer_of(tmp_path_factory.mktemp("grpo"), "GRPO")


def theirs(trainer, advantage: torch.Tensor, given: dict | None = None, **settings) -> torch.Tensor:
    for name, value in settings.items():
        setattr(trainer.args if name in ("delta", "use_bias_correction_kl") else trainer, name, value)
    none = torch.zeros(len(LENGTHS), 0, dtype=torch.long)
    inputs = {
        "prompt_ids": none, "prompt_mask": none, "completion_ids": T.mask.long(), "completion_mask": MASK, "advantages": advantage,
        "old_per_token_logps": T.logprob, "old_logps": T.logprob.sum(1), "ref_per_token_logps": T.reference, "num_items_in_batch": MASK.sum(),
    }  # fmt: skip
    return trainer._compute_loss(trainer.model, inputs | (given or {}))


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (
            ("model=grpo", "model.objective.aggregation=sequence"),
            {"loss_type": "grpo", "beta": 0.05, "use_bias_correction_kl": False},
        ),
        (
            ("model=grpo", "model.objective.aggregation=sequence", "model.objective.kl_by_ratio=true"),
            {"loss_type": "grpo", "beta": 0.05, "use_bias_correction_kl": True},
        ),
        (("model=dr_grpo",), {"loss_type": "dr_grpo"}),
        (("model=dapo",), {"loss_type": "dapo", "epsilon_high": 0.28}),
        (
            ("model=gspo",),
            {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_low": 3e-4, "epsilon_high": 4e-4},
        ),
    ],
    ids=["grpo", "grpo, kl by ratio", "dr_grpo", "dapo", "gspo"],
)
def test_presets(grpo, words: tuple[str, ...], settings: dict) -> None:
    method = preset(*words, group_size=GROUP)
    advantage = method.experience(T, SCORES)[0].advantage
    wanted = theirs(grpo, advantage[:, 0], **PLAIN | settings)
    agree(" ".join(words), our_loss(method.objective, NET, T, advantage), wanted, (NET.logits,))


def test_dual_clip(grpo) -> None:
    """TRL's `delta` bounds the ratio of both signs; where A > 0 the upper clip is below it anyway."""
    advantage = noisy_advantage(T)
    wanted = theirs(grpo, advantage, **PLAIN | {"delta": 1.25})
    agree("dual clip", our_loss(Objective(dual_clip=1.25), NET, T, advantage), wanted, (NET.logits,))


def test_rloo(tmp_path: Path) -> None:
    method = preset("model=rloo")
    advantage = method.experience(T, SCORES)[0].advantage
    wanted = theirs(trainer_of(tmp_path, "RLOO"), advantage[:, 0])
    agree("rloo", our_loss(method.objective, NET, T, advantage), wanted, (NET.logits,))


def test_far_from_the_reference(grpo, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL's k3 isn't bounded: where a token is 100 nats likelier under the reference the loss is infinite; ours is finite."""
    objective, advantage = Objective(kl_coefficient=0.1), noisy_advantage(T)
    monkeypatch.setattr(T, "reference", T.reference + 100 * (T.mask & (torch.arange(len(LENGTHS)) == 3)[:, None]))
    assert theirs(grpo, advantage, **PLAIN | {"beta": 0.1}).isinf()
    (gradient,) = torch.autograd.grad(found := our_loss(objective, NET, T, advantage), NET.logits)
    assert found.isfinite() and gradient.isfinite().all()


def test_truncated_importance_sampling(grpo) -> None:
    """The loss with the weights that TRL's rollout makes with vLLM (`token_truncate`): min(pi / mu, 1.2)."""
    advantage = noisy_advantage(T)
    given = {"importance_sampling_ratio": (T.logprob - T.sampled).exp().clamp(max=1.2)}
    wanted = theirs(grpo, advantage, given, **PLAIN | {"use_vllm": True, "vllm_importance_sampling_correction": True})
    grpo.use_vllm = False
    agree(
        "truncated importance sampling",
        our_loss(Objective(sampler_ratio_max=1.2), NET, T, advantage),
        wanted,
        (NET.logits,),
    )


def test_entropy(grpo) -> None:
    if not hasattr(grpo, "_entropy_bonus_enabled"):
        pytest.skip("TRL 1.12 has no entropy bonus")
    wanted = theirs(
        grpo, advantage := noisy_advantage(T), **PLAIN | {"_entropy_bonus_enabled": True, "entropy_coef": 0.05}
    )
    grpo._entropy_bonus_enabled = False
    agree("entropy", our_loss(Objective(entropy_coefficient=0.05), NET, T, advantage), wanted, (NET.logits,))


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_distillation(beta: float) -> None:
    from trl.experimental.gkd.gkd_trainer import GKDTrainer

    student, teacher = NET.logits[T.mask.nonzero()[:, 0], states(T)[T.mask]], torch.randn(sum(LENGTHS), WORDS)
    weight, settings = torch.full((len(teacher),), 1 / len(teacher)), {"beta": beta, "temperature": TEMPERATURE}
    found, _ = distillation_loss(student, NET.head.weight, teacher, NET.head, weight, **settings)
    labels = torch.zeros(1, len(teacher), dtype=torch.long)
    wanted = GKDTrainer.generalized_jsd_loss(student[None], teacher[None], labels, **settings)
    agree(f"distillation, beta {beta}", found, wanted, (NET.logits,))


def test_overlong_penalty() -> None:
    from trl.rewards import get_soft_overlong_punishment

    wanted = get_soft_overlong_punishment(max_completion_len=LONGEST, soft_punish_cache=4)([[0] * n for n in LENGTHS])
    agree("overlong penalty", overlong_penalty(T.length, LONGEST, 4), torch.tensor(wanted))


def advantages(folder: Path, kind: str, scores: list[float], group: int, **settings) -> torch.Tensor:
    """Of a rollout with these scores, sorted: the trainer shuffles."""
    from datasets import Dataset

    taken = []

    class Taking(getattr(trl, f"{kind}Trainer")):
        def _compute_loss(self, model, inputs):
            taken.append(inputs["advantages"].clone())
            return super()._compute_loss(model, inputs)

    config = getattr(trl, f"{kind}Config")(
        output_dir=str(folder), per_device_train_batch_size=len(scores), num_generations=group, report_to="none", beta=0.0,
        max_completion_length=2, max_steps=1, use_cpu=True, bf16=False, model_init_kwargs={"dtype": "float32"},
        save_strategy="no", disable_tqdm=True, **settings,
    )  # fmt: skip
    Taking(
        model=save_model(folder / "model"), reward_funcs=lambda completions, **_: scores, args=config,
        processing_class=make_tokenizer(), train_dataset=Dataset.from_dict({"prompt": ["the film was", "a"] * len(scores)}),
    ).train()  # fmt: skip
    return torch.cat(taken).sort().values


@pytest.mark.parametrize("scale", ["group", "batch", "none", "rloo"])
def test_advantages(tmp_path: Path, scale: str) -> None:
    settings = {"normalize_advantages": False} if scale == "rloo" else {"scale_rewards": scale}
    wanted = advantages(tmp_path, "RLOO" if scale == "rloo" else "GRPO", SCORES.tolist(), GROUP, **settings)
    found = leave_one_out(SCORES, GROUP) if scale == "rloo" else group_advantages(SCORES, GROUP, scale)
    agree(f"advantages, {scale}", found.sort().values, wanted)


@pytest.mark.parametrize("score", [0.1, 100.1, 1000.1])
def test_equal_rewards(tmp_path: Path, score: float) -> None:
    """Ours are exactly 0; TRL's are said."""
    largest = {kind: advantages(tmp_path / kind, kind, [score] * 14, 7).abs().max().item() for kind in ("GRPO", "RLOO")}
    scores = torch.full((14,), score)
    assert not group_advantages(scores, 7).any() and not leave_one_out(scores, 7).any()
    print(f"{score} for all: TRL's largest advantages {largest}")
