"""What a run of PPO or GRPO says about itself, in plain values."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alignlab.configs.plugins import of
from alignlab.files.result import Result
from alignlab.files.runs import newest_run
from alignlab.methods.grpo import GrpoMethod
from alignlab.methods.ppo import PpoMethod
from alignlab.models.language.actor_critic import POLICY
from alignlab.runs.building import load_system
from alignlab.runs.resuming import saved_config

Row = dict[str, Any]


@dataclass
class Job:
    """A run's settings under the house's names; see the classes that they come from.

    Attributes:
        kind: ppo, grpo, rloo or reinforce++.
        prompts: for training, in the data.
        batch_size: prompts of an update, all processes together.
        micro_batch_size: rows of one process at a time.
        prompt_length: tokens of the longest prompt.
        lora: rank and alpha, or None.
        without: settings that other libraries have nothing for, as people read them.
    """

    kind: str
    prompts: int
    batch_size: int
    group_size: int
    steps: int
    seed: int
    lr: float
    response_length: int
    prompt_length: int
    temperature: float
    epochs: int
    num_minibatches: int
    micro_batch_size: int
    max_grad_norm: float | None
    clip_low: float
    clip_high: float
    dual_clip: float | None
    value_clip: float | None
    entropy: float
    aggregation: str
    importance: str
    scale: str
    kl_in_loss: float
    kl_in_reward: float
    loss_estimator: str
    reward_estimator: str
    kl_target: float | None = None
    kl_horizon: int = 10_000
    gamma: float = 1.0
    lam: float = 1.0
    critic_lr_ratio: float = 1.0
    critic_warmup: int = 0
    lora: tuple[int, int] | None = None
    without: list[str] = field(default_factory=list)

    @property
    def passes(self) -> int:
        """Over the prompts, the last one perhaps not whole."""
        return max(1, math.ceil(self.steps * self.batch_size / max(self.prompts, 1)))


@dataclass
class Handed:
    """A run, opened."""

    place: Path
    method: Any
    data: Any
    job: Job

    def rows(self, split: str) -> list[Row]:
        """Each prompt, a text or messages, with the other columns of its row.

        Raises:
            ValueError: nobody knows what the prompts were rendered from.
        """
        source = self.data.rows[split]
        batch = source.batch(np.arange(len(source)))
        if batch.content is None:
            raise ValueError("hand-over: the data keep no prompts as text or messages")
        columns = batch.rows or [{}] * len(batch.content)
        return [{"prompt": content, **row} for content, row in zip(batch.content, columns, strict=True)]


def opened(run: Path, plugins: list[str]) -> Handed:
    """The run directory `run`, or the newest below it.

    Raises:
        ValueError: it is no run of PPO or GRPO.
    """
    place = newest_run(run, holding="checkpoints")
    system, data = load_system(place, plugins)
    method = getattr(system, "method", None)
    if not isinstance(method, PpoMethod | GrpoMethod):
        raise ValueError(f"hand-over: {run} is no run of model=ppo, model=grpo or one of its presets")
    cfg = saved_config(place, of({"plugins": plugins}))
    return Handed(place, method, data, _job(cfg, Result.read(place), method, data))


def _job(cfg: Any, result: Result | None, method: PpoMethod | GrpoMethod, data: Any) -> Job:
    update, objective, ppo = method.update, method.objective, isinstance(method, PpoMethod)
    adapter = getattr(method.net.model, "peft_config", {}).get(POLICY)
    job = Job(
        kind="ppo" if ppo else method.kind,
        batch_size=data.batch_size * (result.world_size if result else 1),
        group_size=method.group_size,
        steps=cfg.trainer.max_steps,
        seed=cfg.seed,
        lr=cfg.optim.lr,
        response_length=method.sampling.max_new_tokens,
        prompt_length=data.renderer.longest,
        temperature=method.sampling.temperature,
        epochs=update.epochs,
        num_minibatches=update.num_minibatches,
        micro_batch_size=update.micro_batch_size,
        max_grad_norm=update.max_grad_norm,
        **objective.clip,
        value_clip=objective.value_clip,
        entropy=objective.entropy_coefficient,
        aggregation=objective.aggregation,
        importance=objective.importance,
        scale="group" if ppo else method.scale,
        kl_in_loss=objective.kl_coefficient,
        kl_in_reward=method.kl.coefficient if ppo else method.kl_in_reward,
        loss_estimator=objective.kl_estimator,
        reward_estimator=method.kl.estimator if ppo else method.kl_estimator,
        critic_lr_ratio=update.critic_lr_ratio,
        critic_warmup=update.critic_warmup,
        gamma=method.gamma,
        prompts=len(data.rows["train"]),
        lora=None if adapter is None else (adapter.r, round(adapter.lora_alpha)),
    )
    if ppo:
        job.lam, job.kl_target, job.kl_horizon = method.lam, method.kl.target, method.kl.horizon
    job.without = [text for text in _without(method) if text]
    return job


def _without(method: PpoMethod | GrpoMethod) -> list[str]:
    """What the others' settings don't say."""
    found = [
        f"missing_end_penalty={method.missing_end_penalty} ({method.missing_end})"
        if method.missing_end_penalty
        else "",
        f"stop_ids={list(method.sampling.stop_ids)}" if method.sampling.stop_ids else "",
        f"update.target_kl={method.update.target_kl}" if method.update.target_kl else "",
        f"objective.sampler_ratio_max={method.objective.sampler_ratio_max}"
        if method.objective.sampler_ratio_max
        else "",
        "scoring.normalised=true" if method.scoring.normalised else "",
        "scoring.on_error=leave_out" if method.scoring.leave_out else "",
    ]
    if isinstance(method, PpoMethod):
        found += [
            "critic=shared: a critic with a trunk of its own there" if method.net.critic is None else "",
            f"score_scale={method.scale.scale}" if method.scale.scale != "none" else "",
            f"score_clip={method.scale.clip}" if method.scale.clip else "",
        ]
    else:
        found += [
            f"overlong_margin={method.overlong_margin}" if method.overlong_margin else "",
            f"redraws={method.redraws}" if method.redraws else "",
            "skip_equal=true" if method.skip_equal else "",
            "group_baseline=true" if method.group_baseline else "",
        ]
    return found
