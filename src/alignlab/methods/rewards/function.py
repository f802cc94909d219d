"""A reward that is a Python function, free of our types.

Legend: B responses.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from alignlab.methods.rewards.calling import Calling, TooSlow, call, one_of, told
from alignlab.methods.rewards.returned import Parts, no_value, parts_of
from alignlab.methods.rlhf.reward_text import Scored

Function = Callable[..., Sequence[float]]


class FunctionReward:
    """Any Python function of prompts and responses, and of the columns of the prompts' rows that it asks for."""

    def __init__(self, function: Function, name: str | None = None, key: str = "reward") -> None:
        self.function, self.key = function, key
        self.name = name or getattr(function, "__name__", type(function).__name__)
        self.way = Calling.of(function)

    def bind(self, net: Any, tokenizer: Any) -> None:
        """Nothing to do."""

    def __call__(self, batch: Scored) -> Tensor:
        """Scores (B,), the sum of parts where there are several. Raises ValueError as `parts` does."""
        values = self.parts(batch).values.values()
        return torch.tensor(list(values), dtype=torch.float32).sum(0)

    def parts(self, batch: Scored, *, limit: float | None = None, leave_out: bool = False) -> Parts:
        """Named scores of a batch.

        Args:
            limit: seconds of a call; None: none.
            leave_out: responses without a score have NaN instead of ending the run.
        Raises:
            ValueError: in one line, with reward, response and value: the function raised, took too long, or returned
                something else than B finite numbers.
        """
        where, number = f"{self.key}={self.name}", len(batch.responses)
        try:
            returned = call(self.function, self.way, batch, limit)
        except TooSlow as error:
            if not leave_out:
                raise ValueError(f"{where} {error}") from error
            returned = [no_value(str(error))] * number
        except Exception as error:
            if isinstance(error, ValueError) and str(error).startswith("asks for the column"):
                raise ValueError(f"{where} {error}") from None
            returned = self._one_by_one(batch, limit, leave_out, error)
        if self.way.by_row or isinstance(returned, list):
            returned = [no_value(told(one)) if isinstance(one, BaseException) else one for one in returned]
        return parts_of(returned, number, where, leave_out, label=lambda index: labelled(batch, index))

    def _one_by_one(self, batch: Scored, limit: float | None, leave_out: bool, error: Exception) -> list[Any]:
        """What each response gets by itself, after a call for all has raised: so the response is known.

        Raises ValueError where none of them raises, or where none may be left out.
        """
        where, number, scores, first = f"{self.key}={self.name}", len(batch.responses), [], None
        for index in range(number):
            try:
                alone = parts_of(call(self.function, self.way, one_of(batch, index), limit), 1, where, True)
                plain = list(alone.values) == [""]
                scores.append(alone.values[""][0] if plain else {name: v[0] for name, v in alone.values.items()})
            except Exception as raised:
                first = index if first is None else first
                if not leave_out:
                    break
                scores.append(no_value(told(raised)))
        if not leave_out or first is None:
            at = "" if first is None else f" for {labelled(batch, first)}"
            raise ValueError(f"{where} {told(error)}{at}") from error
        return scores


def labelled(batch: Scored, index: int) -> str:
    """A response's number with the beginnings of prompt and response."""
    said = " -> ".join(repr(" ".join(text.split())[:40]) for text in (batch.prompts[index], batch.responses[index]))
    return f"response {index} ({said})"
