"""Runs TRL's PPOTrainer for one update on a tiny Llama and takes down what it computed on the way."""

import inspect
from pathlib import Path
from typing import Any

from tiny_policy import PAD, make_model, make_tokenizer

import torch

NAMES = (
    *("rewards", "values", "scores", "kl", "logprobs", "ref_logprobs", "padding_mask", "padding_mask_p1"),
    *("returns", "advantages", "responses", "queries", "query_responses", "sequence_lengths", "context_length"),
)
MINIBATCH = (
    *("pg_loss", "vf_loss", "new_logprobs", "vpred", "mb_logprobs", "mb_values", "mb_return", "mb_advantage"),
    *("vf_clipfrac", "pg_loss_max", "micro_batch_inds"),
)


def reward_model(seed: int):
    """A Llama with one output a token, as TRL wants it."""
    from transformers import LlamaForSequenceClassification

    config = make_model(seed).config
    config.num_labels = 1
    torch.manual_seed(seed)
    model = LlamaForSequenceClassification(config)
    torch.nn.init.normal_(model.score.weight, std=1.0)
    return model


def run(folder: Path, **settings: Any) -> tuple[dict, list[dict], Any]:
    """Copies of the trainer's local variables: after the advantages, at each backward pass, and the trainer."""
    from datasets import Dataset
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    tokenizer = make_tokenizer()
    g = torch.Generator().manual_seed(3)
    rows = [torch.randint(3, 20, (int(n),), generator=g).tolist() for n in torch.randint(1, 5, (8,), generator=g)]
    tokenizer.padding_side = "left"
    config = PPOConfig(
        output_dir=str(folder),
        **(
            {
                "per_device_train_batch_size": 8,
                "gradient_accumulation_steps": 1,
                "num_mini_batches": 1,
                "num_ppo_epochs": 2,
                "total_episodes": 8,
                "response_length": 8,
                "stop_token": "eos",
                "temperature": 0.7,
                "missing_eos_penalty": 1.0,
                "learning_rate": 3e-3,
                "num_sample_generations": 0,
                "report_to": "none",
                "save_strategy": "no",
                "use_cpu": True,
                "bf16": False,
                "seed": 11,  # responses of four lengths, some cut, none with the padding token (which TRL takes for the end)
                "kl_coef": 0.2,
                "disable_tqdm": True,
                "lr_scheduler_type": "constant",
            }
            | settings
        ),
    )
    trainer = PPOTrainer(
        args=config,
        processing_class=tokenizer,
        model=make_model(0),
        ref_model=make_model(5),
        reward_model=reward_model(7),
        value_model=reward_model(8),
        train_dataset=Dataset.from_dict({"input_ids": rows}),
    )
    rollout: dict = {}
    steps: list[dict] = []
    whiten, backward = ppo_trainer.masked_whiten, trainer.accelerator.backward

    def take(frame: Any, names: tuple[str, ...]) -> dict:
        local = frame.f_locals
        return {n: local[n].clone() if torch.is_tensor(local[n]) else local[n] for n in names if n in local}

    def whiten_and_take(values: torch.Tensor, mask: torch.Tensor, shift_mean: bool = True) -> torch.Tensor:
        local = take(inspect.currentframe().f_back, NAMES)
        if shift_mean:
            rollout.update(local)
            rollout["whitened"] = whiten(values, mask, shift_mean)
        else:
            rollout["plain_rewards"] = local["rewards"]
        return whiten(values, mask, shift_mean)

    def backward_and_take(loss: torch.Tensor) -> None:
        steps.append(take(inspect.currentframe().f_back, MINIBATCH) | {"loss": loss.detach().clone()})
        backward(loss)

    ppo_trainer.masked_whiten, trainer.accelerator.backward = whiten_and_take, backward_and_take
    try:
        trainer.train()
    finally:
        ppo_trainer.masked_whiten, trainer.accelerator.backward = whiten, backward
    assert rollout["queries"].eq(PAD).any(), "prompts of unequal length"
    return rollout, steps, trainer
