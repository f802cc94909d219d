"""Where scores come from: a reward model's run directory, an adapter on the policy's own base, or any Python function.

Legend: B responses.
"""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from alignlab.losses.ppo import length_mask
from alignlab.methods.rewards.function import Function, FunctionReward
from alignlab.methods.rewards.scoring import Rewards
from alignlab.methods.rlhf.parts import micro_batches, sent
from alignlab.methods.rlhf.reward_text import Renderer, RewardText, Scored
from alignlab.models.language.actor_critic import ActorCritic
from alignlab.models.language.lora import use
from alignlab.models.language.paths import load_tokenizer, origin_of, resolve_model
from alignlab.models.language.reward import RewardModel, load_reward_model, reward_head, score_with

REWARD = "reward"  # adapter


class Reward(Protocol):
    """Gives each response a number; more is better."""

    def bind(self, net: ActorCritic, tokenizer: Any) -> None:
        """Called once when the policy exists, on its device.

        A reward that reads ids may have `read_as_trained(renderer, stop_ids)` besides, called next.
        """
        ...

    def __call__(self, batch: Scored) -> Tensor:
        """Scores (B,), float32."""
        ...


def as_reward(reward: "str | Callable | Reward | Mapping", key: str = "reward") -> Reward:
    """A reward from what a config can hold: a run directory, the dotted path of a function, a function, a reward, or a
    mapping of names to such.

    A function takes the prompts and the responses as two lists of texts, and by name the columns of the prompts' rows
    that it asks for; it returns one number for each response, or named parts (`rewards.returned`). Raises ValueError
    for anything else.
    """
    if isinstance(reward, Mapping):
        if not reward:
            raise ValueError(f"{key} is empty: name at least one reward")
        return Rewards({name: as_reward(one, f"{key}.{name}") for name, one in reward.items()})
    if isinstance(reward, str):
        if "/" in reward or Path(reward).is_dir():
            return ModelReward(reward)
        return FunctionReward(_imported(reward, key), name=reward, key=key)
    if hasattr(reward, "bind"):
        return reward
    if callable(reward):
        return FunctionReward(reward, key=key)
    raise ValueError(f"{key} is {reward!r}: name a run directory or a function (package.module.function)")


class ModelReward(Reward):
    """A reward model from its run directory, with a tokenizer of its own where its vocabulary is another one.

    normalised: (r - mean) / deviation, both stored with the model.
    """

    def __init__(self, path: str, normalised: bool = True, micro_batch_size: int = 32) -> None:
        self.path, self.normalised, self.micro_batch_size = path, normalised, micro_batch_size
        self.model: RewardModel | None = None
        self.tokenizer: Any = None

    def bind(self, net: ActorCritic, tokenizer: Any) -> None:
        """Load the model, once. Raises ValueError where there is none."""
        if self.model is None:
            self.model = load_reward_model(self.path)
            own = load_tokenizer(self.path)
            self.tokenizer = None if own.get_vocab() == tokenizer.get_vocab() else own
            self.text = RewardText(None, self.tokenizer)
        self.model.to(net.device)

    def read_as_trained(self, renderer: Renderer, stop_ids: Sequence[int]) -> None:
        """From now on rollouts are rendered as at the reward model's training.

        Raises ValueError where known dialogues don't score the same both ways.
        """
        self.text = RewardText(renderer, self.tokenizer)
        verify_text(self, self.text, self.path, stop_ids)

    def __call__(self, batch: Scored) -> Tensor:
        """Scores (B,): rows go through in parts of like length, each tokenized and ended as at the reward model's own
        training.
        """
        return self.of_ids(self.text.rows(batch))

    def of_ids(self, rows: list[list[int]]) -> Tensor:
        """Scores (B,) of rows of ids of the reward model's own vocabulary."""
        return scored_in_parts(rows, self._score, self.micro_batch_size, self.model.mean.device)

    def _score(self, ids: Tensor, mask: Tensor) -> Tensor:
        return (self.model.normalised if self.normalised else self.model)(ids, mask)


class AdapterReward(Reward):
    """A reward model that is an adapter on the policy's own base: no second base in memory.

    path: run directory of `model=reward model/peft=lora` whose base is the one that the policy has.
    """

    def __init__(self, path: str, normalised: bool = True, micro_batch_size: int = 32) -> None:
        self.path, self.normalised, self.micro_batch_size = path, normalised, micro_batch_size
        self.net: ActorCritic | None = None

    def bind(self, net: ActorCritic, tokenizer: Any) -> None:
        """Load the adapter beside the policy's. Raises ValueError where base or kind don't fit."""
        if self.net is net:
            return
        if not net.adapters:
            raise ValueError("a reward that is an adapter needs a policy with adapters: model/peft=lora")
        _, adapter = resolve_model(self.path)
        if adapter is None:
            raise ValueError(f"reward: {self.path} holds a whole model, no adapter; give its path itself as reward")
        base, own = resolve_model(self.path)[0], origin_of(net.model)
        if own is not None and Path(base).exists() and Path(base).resolve() != Path(own).resolve():
            raise ValueError(f"reward: the adapter of {self.path} belongs to {base}, the policy to {own}")
        trained = [parameter for parameter in net.model.parameters() if parameter.requires_grad]
        net.model.load_adapter(adapter, adapter_name=REWARD)
        net.model.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
        self.head = reward_head(net.model, adapter).to(net.device)
        self.net, self.text = net, RewardText(None)

    def read_as_trained(self, renderer: Renderer, stop_ids: Sequence[int]) -> None:
        """As for a `ModelReward`."""
        self.text = RewardText(renderer)
        verify_text(self, self.text, self.path, stop_ids)

    def __call__(self, batch: Scored) -> Tensor:
        """Scores (B,)."""
        return self.of_ids(self.text.rows(batch))

    def of_ids(self, rows: list[list[int]]) -> Tensor:
        """Scores (B,) of rows of ids."""
        with use(self.net.model, REWARD):
            score = scored_in_parts(rows, self._score, self.micro_batch_size, self.net.device)
        return (score - self.head.mean) / self.head.std if self.normalised else score

    def _score(self, ids: Tensor, mask: Tensor) -> Tensor:
        return score_with(self.net.model, self.head)(ids, mask)


def scored_in_parts(
    rows: list[list[int]], score: Callable[[Tensor, Tensor], Tensor], micro_batch_size: int, device: torch.device
) -> Tensor:
    """Scores of rows of ids in their order, (B,) on `device`, which nobody waits for; rows of like length go together,
    padded on the right.
    """
    groups = micro_batches(range(len(rows)), [len(row) for row in rows], micro_batch_size)
    host = []
    for part in groups:
        width = max(len(rows[i]) for i in part)
        host.append(torch.tensor([rows[i] + [0] * (width - len(rows[i])) for i in part]))
        host.append(torch.tensor([len(rows[i]) for i in part]))
    *values, place = sent([*host, torch.tensor([i for part in groups for i in part]).argsort()], device)
    scores = [score(ids, length_mask(n, ids.shape[1])) for ids, n in zip(values[::2], values[1::2], strict=True)]
    return torch.cat(scores).float()[place]


def verify_text(reward: ModelReward | AdapterReward, text: RewardText, path: str, stop_ids: Sequence[int]) -> None:
    """Raises ValueError where a known dialogue scores differently as a rollout and as the text that the reward model
    was trained on.
    """
    with torch.no_grad():
        for said, trained in text.known(stop_ids):
            actual, wanted = float(reward(said)), float(reward.of_ids([trained]))
            if abs(actual - wanted) > 1e-3 * max(1.0, abs(wanted)):
                raise ValueError(
                    f"reward={path} reads rollouts otherwise than its training did: {said.contents[0]!r} with the "
                    f"answer {said.responses[0]!r} scores "
                    f"{actual:.4g} instead of {wanted:.4g}; both must have one chat template"
                )


def _imported(path: str, key: str) -> Function:
    """The function at a dotted path; the current directory counts, as for a script."""
    module, _, name = path.rpartition(".")
    if not module:
        raise ValueError(f"{key}={path} is neither a run directory nor package.module.function")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{key}={path} can't be imported: {error}") from error
    if not callable(function):
        raise ValueError(f"{key}={path} is {type(function).__name__}, not a function")
    return function
