"""Where scores come from: a reward model's run directory, an adapter on the policy's own base, or any Python function.

Legend: B responses.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from alignlab.losses.ppo import length_mask
from alignlab.models.actor_critic import ActorCritic
from alignlab.models.language import load_tokenizer, resolve_model
from alignlab.models.lora import use
from alignlab.models.reward import RewardModel, load_reward_model, reward_head, score_with

REWARD = "reward"  # adapter


class Scored(NamedTuple):
    """Responses as a reward sees them."""

    prompts: list[str]  # B
    responses: list[str]  # B
    sequences: list[list[int]]  # B, ids of prompt and response in the policy's vocabulary
    ended: list[bool]  # B, False: cut


class Reward(Protocol):
    """Gives each response a number; more is better."""

    def bind(self, net: ActorCritic, tokenizer: Any) -> None:
        """Called once when the policy exists, on its device."""
        ...

    def __call__(self, batch: Scored) -> Tensor:
        """Scores (B,), float32."""
        ...


Function = Callable[[list[str], list[str]], Sequence[float]]


def as_reward(reward: "str | Callable | Reward", key: str = "model.reward") -> Reward:
    """A reward from what a config can hold: a run directory, the dotted path of a function, a function, or a reward.

    A function takes the prompts and the responses as two lists of texts and returns one number for each. Raises ValueError for anything else.
    """
    if isinstance(reward, str):
        if "/" in reward or Path(reward).is_dir():
            return ModelReward(reward)
        return FunctionReward(_imported(reward, key), name=reward, key=key)
    if hasattr(reward, "bind"):
        return reward
    if callable(reward):
        return FunctionReward(reward, key=key)
    raise ValueError(f"{key} is {reward!r}: name a run directory or a function (package.module.function)")


class FunctionReward:
    """Any Python function of prompts and responses."""

    def __init__(self, function: Function, name: str | None = None, key: str = "model.reward") -> None:
        self.function, self.key = function, key
        self.name = name or getattr(function, "__name__", type(function).__name__)

    def bind(self, net: ActorCritic, tokenizer: Any) -> None:
        """Nothing to do."""

    def __call__(self, batch: Scored) -> Tensor:
        """Scores (B,). Raises ValueError in one line where the function raises or returns something else than B finite numbers."""
        try:
            returned = self.function(batch.prompts, batch.responses)
        except Exception as error:
            reason = str(error).strip().splitlines()[:1]
            raise ValueError(
                f"{self.key}={self.name} raised {type(error).__name__}: {reason[0] if reason else 'no message'}"
            ) from error
        return checked_scores(returned, len(batch.responses), f"{self.key}={self.name}")


class ModelReward:
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
        self.model.to(net.device)

    def __call__(self, batch: Scored) -> Tensor:
        """Scores (B,): rows go through in parts of like length, each tokenized and ended as at the reward model's own training."""
        rows = batch.sequences if self.tokenizer is None else self._tokenized(batch)
        return scored_in_parts(rows, self._score, self.micro_batch_size)

    def _score(self, ids: Tensor, mask: Tensor) -> Tensor:
        device = self.model.mean.device
        score = self.model.normalised if self.normalised else self.model
        return score(ids.to(device), mask.to(device))

    def _tokenized(self, batch: Scored) -> list[list[int]]:
        texts = [prompt + response for prompt, response in zip(batch.prompts, batch.responses, strict=True)]
        start = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        ids = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [
            start + row + [self.tokenizer.eos_token_id] * ended for row, ended in zip(ids, batch.ended, strict=True)
        ]


class AdapterReward:
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
            raise ValueError(
                f"model.reward: {self.path} holds a whole model, no adapter; give its path itself as reward"
            )
        base, own = resolve_model(self.path)[0], net.model.__dict__.get("_alignlab_base")
        if own is not None and Path(base).exists() and Path(base).resolve() != Path(own).resolve():
            raise ValueError(f"model.reward: the adapter of {self.path} belongs to {base}, the policy to {own}")
        trained = [parameter for parameter in net.model.parameters() if parameter.requires_grad]
        net.model.load_adapter(adapter, adapter_name=REWARD)
        net.model.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
        self.head = reward_head(net.model, adapter).to(net.device)
        self.net = net

    def __call__(self, batch: Scored) -> Tensor:
        """Scores (B,)."""
        with use(self.net.model, REWARD):
            score = scored_in_parts(batch.sequences, self._score, self.micro_batch_size)
        return (score - self.head.mean.cpu()) / self.head.std.cpu() if self.normalised else score

    def _score(self, ids: Tensor, mask: Tensor) -> Tensor:
        return score_with(self.net.model, self.head)(ids.to(self.net.device), mask.to(self.net.device))


def scored_in_parts(rows: list[list[int]], score: Callable[[Tensor, Tensor], Tensor], micro_batch_size: int) -> Tensor:
    """Scores of rows of ids in their order, (B,) on the CPU; rows of like length go together, padded on the right by their lengths."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found = torch.zeros(len(rows))
    for start in range(0, len(order), micro_batch_size):
        part = order[start : start + micro_batch_size]
        length = torch.tensor([len(rows[i]) for i in part])
        width = int(length.max())
        ids = torch.tensor([rows[i] + [0] * (width - len(rows[i])) for i in part])
        found[part] = score(ids, length_mask(length, width)).float().cpu()
    return found


def checked_scores(returned: object, number: int, where: str) -> Tensor:
    """`returned` as (number,) float32 on the CPU. Raises ValueError for another shape, for what is no number, and for NaN or infinity."""
    try:
        score = torch.as_tensor(returned, dtype=torch.float32, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{where} returned {type(returned).__name__}, not {number} numbers") from error
    if score.shape != (number,):
        raise ValueError(f"{where} returned shape {tuple(score.shape)} for {number} responses; it must be ({number},)")
    finite = torch.isfinite(score)
    if not finite.all():
        first = int((~finite).int().argmax())
        raise ValueError(f"{where} returned {score[first].item()} for response {first}; scores must be finite")
    return score


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
