"""A run's settings in the words of other libraries; each function gives a program and what it doesn't say.

Checked against TRL 1.12.0, verl 0.9.1 and OpenRLHF 0.11.2 (docs/hand_over.md).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from alignlab.tools.hand_over.job import Job

FAR = 1e4  # as a clip: none


@dataclass
class Recipe:
    """A program to run in the folder.

    Attributes:
        file: its name.
        text: its content.
        without: settings of the run that it doesn't have.
    """

    file: str
    text: str
    without: list[str]


def verl(job: Job, chats: bool) -> Recipe:
    """Overrides of `verl.trainer.main_ppo`."""
    estimators = {"ppo": "gae", "grpo": "grpo", "rloo": "rloo", "reinforce++": "reinforce_plus_plus"}
    means = {"token": "token-mean", "sequence": "seq-mean-token-mean", "constant": "seq-mean-token-sum-norm"}
    actor, rollout = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    words: dict[str, Any] = {
        "data.train_files": '"$HERE/train.parquet"',
        "data.val_files": '"$HERE/val.parquet"',
        "data.train_batch_size": job.batch_size,
        "data.max_prompt_length": job.prompt_length,
        "data.max_response_length": job.response_length,
        "reward.custom_reward_function.path": '"$HERE/reward.py"',
        "actor_rollout_ref.model.path": '"$HERE/model"',
        f"{actor}.optim.lr": job.lr,
        f"{actor}.optim.weight_decay": 0.0,
        f"{actor}.ppo_mini_batch_size": max(job.batch_size // job.num_minibatches, 1),
        f"{actor}.ppo_micro_batch_size_per_gpu": job.micro_batch_size,
        f"{actor}.ppo_epochs": job.epochs,
        f"{actor}.clip_ratio": job.clip_low,
        f"{actor}.clip_ratio_low": job.clip_low,
        f"{actor}.clip_ratio_high": job.clip_high,
        f"{actor}.clip_ratio_c": job.dual_clip or FAR,
        f"{actor}.grad_clip": job.max_grad_norm or FAR,
        f"{actor}.entropy_coeff": job.entropy,
        f"{actor}.loss_agg_mode": means[job.aggregation],
        f"{actor}.use_kl_loss": job.kl_in_loss > 0,
        f"{rollout}.name": "vllm",
        f"{rollout}.n": job.group_size,
        f"{rollout}.temperature": job.temperature,
        f"{rollout}.tensor_model_parallel_size": 1,
        f"{rollout}.log_prob_micro_batch_size_per_gpu": job.micro_batch_size,
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": job.micro_batch_size,
        "algorithm.adv_estimator": estimators[job.kind],
        "algorithm.gamma": job.gamma,
        "algorithm.lam": job.lam,
        "algorithm.norm_adv_by_std_in_grpo": job.scale != "none",
        "algorithm.use_kl_in_reward": job.kl_in_reward > 0,
        "trainer.total_epochs": job.passes,
        "trainer.total_training_steps": job.steps,
        "trainer.n_gpus_per_node": "$GPUS",
        "trainer.logger": "[console]",
    }
    words |= _verl_more(job, actor)
    lines = [f"  {key}={value if not isinstance(value, bool) else str(value).lower()}" for key, value in words.items()]
    return Recipe("run.sh", _script("python3 -m verl.trainer.main_ppo", lines), _verl_lacks(job))


def _verl_lacks(job: Job) -> list[str]:
    without = list(job.without)
    if job.kl_target:
        without.append(
            f"kl.target={job.kl_target}: verl's target counts means over tokens; set algorithm.kl_ctrl.target_kl"
        )
    if job.importance == "sequence_sum":
        without.append("objective.importance=sequence_sum")
    if job.scale == "batch":
        without.append("scale=batch")
    return without


def _verl_more(job: Job, actor: str) -> dict[str, Any]:
    """What stands there only where the run has it."""
    kinds = {"k1": "kl", "k2": "mse", "k3": "low_var_kl"}
    words: dict[str, Any] = {}
    if job.kl_in_loss:
        words |= {f"{actor}.kl_loss_coef": job.kl_in_loss, f"{actor}.kl_loss_type": kinds[job.loss_estimator]}
    if job.kl_in_reward:
        words |= {
            "algorithm.kl_penalty": kinds[job.reward_estimator],
            "algorithm.kl_ctrl.kl_coef": job.kl_in_reward,
            "algorithm.kl_ctrl.type": "adaptive" if job.kl_target else "fixed",
            "algorithm.kl_ctrl.horizon": job.kl_horizon,
        }
    if job.importance == "sequence_mean":
        words[f"{actor}.policy_loss.loss_mode"] = "gspo"
    if job.kind == "ppo":
        words |= {
            "critic.model.path": '"$HERE/model"',
            "critic.optim.lr": job.lr * job.critic_lr_ratio,
            "critic.cliprange_value": job.value_clip or FAR,
            "critic.ppo_micro_batch_size_per_gpu": job.micro_batch_size,
            "trainer.critic_warmup": job.critic_warmup,
        }
    if job.lora:
        rank, alpha = job.lora
        words |= {"actor_rollout_ref.model.lora_rank": rank, "actor_rollout_ref.model.lora_alpha": alpha}
    return words


def openrlhf(job: Job, chats: bool) -> Recipe:
    """Arguments of `openrlhf.cli.train_ppo_ray`."""
    estimators = {"ppo": "gae", "grpo": "group_norm", "rloo": "rloo", "reinforce++": "reinforce"}
    estimator = "dr_grpo" if job.kind == "grpo" and job.scale == "none" else estimators[job.kind]
    responses = job.batch_size * job.group_size
    words: dict[str, Any] = {
        "actor.model_name_or_path": '"$HERE/model"',
        "reward.remote_url": '"$HERE/reward.py"',
        "data.prompt_dataset": '"$HERE/train.jsonl"',
        "data.input_key": "prompt",
        "data.label_key": "label",
        "data.max_len": job.prompt_length + job.response_length,
        "rollout.max_new_tokens": job.response_length,
        "rollout.temperature": job.temperature,
        "rollout.batch_size": job.batch_size,
        "rollout.n_samples_per_prompt": job.group_size,
        "rollout.micro_batch_size": job.micro_batch_size,
        "train.batch_size": max(responses // job.num_minibatches, 1),
        "train.micro_batch_size": job.micro_batch_size,
        "train.max_epochs": job.epochs,
        "train.seed": job.seed,
        "train.num_episodes": job.passes,
        "data.max_samples": min(job.prompts, job.steps * job.batch_size),
        "actor.adam.lr": job.lr,
        "actor.max_norm": job.max_grad_norm or FAR,
        "actor.eps_clip_low_high": f"{job.clip_low} {job.clip_high}",
        "actor.entropy_coef": job.entropy,
        "actor.loss_agg_mode": "token-mean" if job.aggregation == "token" else "seq-mean-token-mean",
        "algo.advantage.estimator": estimator,
        "algo.advantage.gamma": job.gamma,
        "algo.advantage.lambd": job.lam,
        "algo.kl.init_coef": job.kl_in_loss or job.kl_in_reward,
        "algo.kl.estimator": job.loss_estimator if job.kl_in_loss else job.reward_estimator,
        "actor.num_gpus_per_node": "$GPUS",
        "ref.num_gpus_per_node": "$GPUS",
        "vllm.num_engines": "$GPUS",
        "ckpt.output_dir": '"$HERE/trained"',
    }
    flags = ["train.colocate_all", "vllm.enable_sleep", "ds.enable_sleep"]
    flags += ["algo.kl.use_loss"] if job.kl_in_loss else []
    flags += ["data.apply_chat_template"] if chats else []
    words |= _openrlhf_more(job)
    lines = [f"  --{key} {value}" for key, value in words.items()] + [f"  --{flag}" for flag in flags]
    return Recipe("run.sh", _script("python3 -m openrlhf.cli.train_ppo_ray", lines), _openrlhf_lacks(job))


def _openrlhf_lacks(job: Job) -> list[str]:
    without = list(job.without)
    if job.kl_in_loss and job.kl_in_reward:
        without.append(f"kl_in_reward={job.kl_in_reward}: one penalty there, that of the loss")
    if job.aggregation == "constant":
        without.append("objective.aggregation=constant")
    if job.scale == "batch":
        without.append("scale=batch")
    if job.importance == "sequence_sum":
        without.append("objective.importance=sequence_sum")
    return without


def _openrlhf_more(job: Job) -> dict[str, Any]:
    """What stands there only where the run has it."""
    words: dict[str, Any] = {}
    if job.dual_clip:
        words["actor.dual_clip"] = job.dual_clip
    if job.importance == "sequence_mean":
        words["actor.policy_loss_type"] = "gspo"
    if job.kl_target:
        words |= {"algo.kl.target": job.kl_target, "algo.kl.horizon": job.kl_horizon}
    if job.kind == "ppo":
        words |= {
            "critic.model_name_or_path": '"$HERE/model"',
            "critic.adam.lr": job.lr * job.critic_lr_ratio,
            "critic.value_clip": job.value_clip or FAR,
            "critic.freezing_steps": job.critic_warmup or -1,
            "critic.num_gpus_per_node": "$GPUS",
        }
    if job.lora:
        words |= {"ds.lora.rank": job.lora[0], "ds.lora.alpha": job.lora[1]}
    return words


def trl(job: Job, chats: bool) -> Recipe:
    """A program with `GRPOTrainer` or `RLOOTrainer`.

    Raises:
        ValueError: TRL trains no such policy.
    """
    if job.kind not in ("grpo", "rloo"):
        raise ValueError(f"hand-over trl: {job.kind} isn't among TRL's trainers; take verl or openrlhf")
    name, rloo = job.kind.upper(), job.kind == "rloo"
    responses = job.batch_size * job.group_size
    settings: dict[str, Any] = {
        "output_dir": "trained",
        "learning_rate": job.lr,
        "adam_epsilon": 1e-5,
        "max_steps": job.steps,
        "seed": job.seed,
        "per_device_train_batch_size": max(responses // job.num_minibatches, 1),
        "steps_per_generation": job.num_minibatches,
        "num_generations": job.group_size,
        "num_iterations": job.epochs,
        "max_completion_length": job.response_length,
        "temperature": job.temperature,
        "epsilon": job.clip_low,
        "epsilon_high": job.clip_high,
        "beta": job.kl_in_reward if rloo else job.kl_in_loss,
        "max_grad_norm": job.max_grad_norm or FAR,
        "bf16": False,
    }
    without = list(job.without)
    if not rloo:
        losses = {"token": "dapo", "sequence": "grpo", "constant": "dr_grpo"}
        level = "token" if job.importance == "token" else "sequence"
        settings |= {
            "loss_type": losses[job.aggregation],
            "scale_rewards": job.scale,
            "importance_sampling_level": level,
        }
        if job.kl_in_reward:
            without.append(f"kl_in_reward={job.kl_in_reward}")
    if job.dual_clip and not rloo:
        settings["delta"] = job.dual_clip
    if job.entropy:
        without.append(f"objective.entropy_coefficient={job.entropy}")
    return Recipe("train.py", _trl_program(name, settings, job.lora), without)


def _trl_program(name: str, settings: Mapping[str, Any], lora: tuple[int, int] | None) -> str:
    lines = "\n".join(f"    {key}={value!r}," for key, value in settings.items())
    peft = "None"
    if lora:
        peft = f'LoraConfig(r={lora[0]}, lora_alpha={lora[1]}, task_type="CAUSAL_LM")'
    imports = "from peft import LoraConfig\n" if lora else ""
    return f"""\"\"\"Goes on with a run of alignlab in TRL, in one process.\"\"\"

from datasets import load_dataset
{imports}from reward import reward
from trl import {name}Config, {name}Trainer

settings = {name}Config(
{lines}
)
{name}Trainer(
    model="model",
    reward_funcs=reward,
    args=settings,
    train_dataset=load_dataset("json", data_files="train.jsonl", split="train"),
    peft_config={peft},
).train()
"""


def _script(command: str, lines: list[str]) -> str:
    about = "#!/bin/sh\n# More words of the library's own go behind: sh run.sh ...\n"
    head = about + 'HERE=$(cd "$(dirname "$0")" && pwd)\nGPUS=${GPUS:-1}\n'
    return head + " \\\n".join([command, *lines, '  "$@"']) + "\n"


RECIPES: Mapping[str, Callable[[Job, bool], Recipe]] = {"trl": trl, "verl": verl, "openrlhf": openrlhf}


def as_label(row: Mapping[str, Any]) -> str:
    """A row as the one text that OpenRLHF and verl hand on to a reward."""
    return json.dumps(dict(row), ensure_ascii=False)
