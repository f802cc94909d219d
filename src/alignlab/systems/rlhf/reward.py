"""Where scores come from: a reward model's run directory, an adapter on the policy's own base, or any Python function.

Legend: B responses.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from alignlab.models.actor_critic import ActorCritic


class Scored(NamedTuple):
    """Responses as a reward sees them."""

    prompts: list[str]  # B
    responses: list[str]  # B
    sequences: list[list[int]]  # B, ids of prompt and response in the policy's vocabulary


class Reward(Protocol):
    """Gives each response a number; more is better."""

    def bind(self, net: ActorCritic, tokenizer: object) -> None:
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

    def bind(self, net: ActorCritic, tokenizer: object) -> None:
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
