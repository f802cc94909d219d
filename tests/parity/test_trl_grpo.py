"""Advantages and losses of GRPO, Dr. GRPO, DAPO, GSPO and RLOO against TRL 1.12's trainers, on the rollouts that they made themselves."""

from pathlib import Path
from typing import Any

from alignlab.configs.command_line import arguments
from alignlab.configs.explain import composed
from alignlab.configs.filling import filled
from alignlab.losses.grpo import group_advantages, leave_one_out, sequence_log_ratio
from alignlab.losses.ppo import policy_terms, token_kl, token_weights
from tiny_policy import make_tokenizer, save_model

import pytest
import torch
from torch.testing import assert_close

trl = pytest.importorskip("trl")
PAPER = ("model.objective.aggregation=sequence", "model.objective.kl_coefficient=0.1")
EXACT = {"rtol": 1e-6, "atol": 1e-6}
GROUP, ROWS, LONGEST = 4, 8, 8


def run(folder: Path, rloo: bool = False, **settings: Any) -> tuple[list[dict], list[float]]:
    """What goes into TRL's loss and what comes out, for each optimizer step on one rollout; and the rewards."""
    from datasets import Dataset

    rewards: list[float] = []

    def reward(completions: list[str], **_: Any) -> list[float]:
        rewards.extend(found := [len(text) % 7 / 3 for text in completions])
        return found

    config = (trl.RLOOConfig if rloo else trl.GRPOConfig)(
        output_dir=str(folder),
        per_device_train_batch_size=ROWS,
        num_generations=GROUP,
        max_completion_length=LONGEST,
        num_iterations=2,
        max_steps=2,
        learning_rate=5e-3,
        temperature=0.9,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        seed=3,
        model_init_kwargs={"dtype": "float32"},
        **settings,
    )
    trainer = (trl.RLOOTrainer if rloo else trl.GRPOTrainer)(
        model=save_model(folder / "model"),
        reward_funcs=reward,
        args=config,
        processing_class=make_tokenizer(),
        train_dataset=Dataset.from_dict({"prompt": ["the film was", "a"] * 4}),
    )
    steps: list[dict] = []
    compute, logps = trainer._compute_loss, trainer._get_per_token_logps_and_entropies

    def logps_and_take(*args: Any, **kwargs: Any) -> tuple:
        found = logps(*args, **kwargs)
        trainer._taken = found[0].detach().clone()
        return found

    def compute_and_take(model: Any, inputs: dict) -> torch.Tensor:
        loss = compute(model, inputs)
        kept = {name: value.clone() for name, value in inputs.items() if torch.is_tensor(value)}
        steps.append(kept | {"loss": loss.detach().clone(), "logps": trainer._taken})
        return loss

    trainer._compute_loss, trainer._get_per_token_logps_and_entropies = compute_and_take, logps_and_take
    trainer.train()
    assert len(steps) == 2
    return steps, rewards


def ours(
    step: dict,
    old: torch.Tensor,
    aggregation: str,
    importance: str,
    beta: float,
    clips: tuple[float, float],
    kl_by_ratio: bool = False,
) -> torch.Tensor:
    """Our loss from the same numbers, on flat tokens as the objective has them."""
    mask = step["completion_mask"].bool()
    row = torch.arange(ROWS)[:, None].expand_as(mask)[mask]
    logprob, before = step["logps"][mask], old[mask]
    advantage = step["advantages"][row]
    if importance != "token":
        logprob = before + sequence_log_ratio(logprob - before, row, ROWS, importance == "sequence_mean")
    per_token = policy_terms(logprob, before, advantage, clip_low=clips[0], clip_high=clips[1]).loss
    if beta:
        kl = token_kl(step["logps"][mask], step["ref_per_token_logps"][mask], "k3")
        per_token = per_token + beta * (kl * (step["logps"][mask] - before).exp() if kl_by_ratio else kl)
    length = mask.sum(1)
    weight = token_weights(
        length, aggregation, tokens=mask.sum().float(), sequences=torch.tensor(float(ROWS)), longest=LONGEST
    )
    return (per_token * weight[row]).sum()


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (("model=grpo", *PAPER), {"loss_type": "grpo", "beta": 0.1}),
        (
            ("model=grpo", *PAPER, "model.scale=batch"),
            {"loss_type": "grpo", "beta": 0.1, "use_bias_correction_kl": False, "scale_rewards": "batch"},
        ),
        (("model=dr_grpo",), {"loss_type": "dr_grpo", "scale_rewards": "none"}),
        (("model=dapo",), {"loss_type": "dapo", "epsilon_high": 0.28}),
        (
            ("model=gspo",),
            {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4},
        ),
    ],
    ids=["grpo", "grpo, plain kl", "dr_grpo", "dapo", "gspo"],
)
def test_grpo(tmp_path: Path, words: tuple[str, ...], settings: dict) -> None:
    """Presets as they stand, with what TRL's documentation says of the same papers."""
    model = filled(composed(arguments(words))).model
    objective = model.objective
    aggregation, importance, beta = objective.aggregation, objective.importance, objective.kl_coefficient
    scale, clips = model.scale, (objective.clip_low, objective.clip_high)
    steps, rewards = run(tmp_path, **{"beta": 0.0, "epsilon": 0.2} | settings)
    assert len(set(steps[0]["completion_mask"].sum(1).tolist())) > 1, "ragged"
    by_text = group_advantages(torch.tensor(rewards[:ROWS]), GROUP, scale)
    assert_close(sorted(steps[0]["advantages"].tolist()), sorted(by_text.tolist()), rtol=1e-5, atol=1e-6)
    old = steps[0]["logps"]
    by_ratio = settings.get("use_bias_correction_kl", True)  # TRL's default
    for number, step in enumerate(steps):
        assert_close(ours(step, old, aggregation, importance, beta, clips, by_ratio), step["loss"], **EXACT)
        assert number == 0 or not torch.equal(step["logps"], old), "the second step sees a moved policy"


def test_rloo(tmp_path: Path) -> None:
    model = filled(composed(arguments(["model=rloo"]))).model
    assert (model.kind, model.group_size, model.objective.kl_coefficient) == ("rloo", GROUP, 0.0)
    steps, rewards = run(tmp_path, rloo=True, beta=model.kl_in_reward, normalize_advantages=False)
    found = leave_one_out(torch.tensor(rewards[:ROWS]), GROUP)
    assert_close(sorted(steps[0]["advantages"].tolist()), sorted(found.tolist()), rtol=1e-5, atol=1e-6)
    old = steps[0]["logps"]
    for step in steps:
        assert_close(
            ours(step, old, model.objective.aggregation, model.objective.importance, 0.0, (0.2, 0.2)),
            step["loss"],
            **EXACT,
        )
