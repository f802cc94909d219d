"""How a reward function is called: in our way, or in that of TRL, verl or OpenRLHF, told by its parameters' names.

Legend: B responses.
"""

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from alignlab.methods.rlhf.reward_text import Scored

TRUTH = ("ground_truth", "answer", "label", "labels", "target", "solution")  # columns that hold what is right


class TooSlow(Exception):
    """A call took longer than it may."""


@dataclass(frozen=True)
class Calling:
    """A way to call a function.

    Attributes:
        by_row: once for each response instead of once for all.
        accepts: names of parameters; None: any.
        required: those without a default.
    """

    kind: str  # ours, trl, verl, openrlhf
    by_row: bool
    accepts: frozenset[str] | None
    required: tuple[str, ...]

    @classmethod
    def of(cls, function: Callable) -> "Calling":
        """The way that a function's parameters ask for: `solution_str` is verl's, `queries` OpenRLHF's, `completions`
        TRL's; all others get prompts and responses first.
        """
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):  # of C
            return cls("ours", False, frozenset(), ())
        kinds = inspect.Parameter
        named = [p for p in parameters if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
        anything = any(p.kind is kinds.VAR_KEYWORD for p in parameters)
        names = {p.name for p in named}
        kind = next((k for k, name in _TOLD_BY.items() if name in names), "ours")
        if kind == "ours":  # whatever the first two are called
            positional = [p for p in named if p.kind is kinds.POSITIONAL_OR_KEYWORD][:2]
            named = [p for p in named if p not in positional]
        required = tuple(p.name for p in named if p.default is kinds.empty)
        return cls(kind, kind == "verl", None if anything else frozenset(p.name for p in named), required)

    def arguments(self, batch: Scored) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What a call for all responses gets.

        Raises:
            ValueError: the data have no column that the function asks for.
        """
        given = columns(batch)
        if self.kind == "trl":
            chats = batch.contents is not None and all(isinstance(content, list) for content in batch.contents)
            given |= {"prompts": list(batch.contents) if chats else batch.prompts}
            given["completions"] = (
                [[{"role": "assistant", "content": text}] for text in batch.responses] if chats else batch.responses
            )
            given.setdefault("trainer_state", None)
        elif self.kind == "openrlhf":
            given |= {"prompts": batch.prompts}
            given["queries"] = [p + r for p, r in zip(batch.prompts, batch.responses, strict=True)]
            given["labels"] = next((given[name] for name in TRUTH if name in given), [None] * len(batch.responses))
        elif self.kind == "verl":
            given["solution_str"] = batch.responses
            truth = next((given[name] for name in TRUTH if name in given), None)
            if truth is not None:
                given.setdefault("ground_truth", truth)
            given.setdefault("data_source", ["unknown"] * len(batch.responses))
            given.setdefault("extra_info", [dict(row) for row in batch.rows or [{}] * len(batch.responses)])
        positional = (batch.prompts, batch.responses) if self.kind == "ours" else ()
        lacking = [name for name in self.required if name not in given]
        if lacking:
            there = ", ".join(columns(batch)) or "none"
            raise ValueError(f"asks for the column {' and '.join(lacking)}; the data have {there}")
        return positional, {k: v for k, v in given.items() if self.accepts is None or k in self.accepts}


_TOLD_BY = {"verl": "solution_str", "openrlhf": "queries", "trl": "completions"}


def columns(batch: Scored) -> dict[str, list[Any]]:
    """The rows' columns, each as long as the batch; None where a row doesn't have one."""
    rows = batch.rows or []
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names if name not in ("prompts", "responses")}


def one_of(batch: Scored, index: int) -> Scored:
    """A batch of one response."""
    part = slice(index, index + 1)
    return Scored(*(None if field is None else field[part] for field in batch))


def call(function: Callable, way: Calling, batch: Scored, limit: float | None) -> Any:
    """What a function returns for a batch; with `by_row` a list of what it returned, or raised, for each response.

    Coroutines run side by side, in a thread of their own as everything with a time limit does: what doesn't come back
    is left behind there.

    Args:
        limit: seconds; None: none.
    Raises:
        TooSlow: the limit is over (of a function that is called once for all).
    """
    positional, named = way.arguments(batch)
    if not way.by_row:
        return within(limit, lambda: _awaited(function(*positional, **named), limit))
    calls = [
        lambda i=i: function(**{name: values[i] for name, values in named.items()}) for i in range(len(batch.responses))
    ]
    if inspect.iscoroutinefunction(function):
        return within(None, lambda: asyncio.run(_together(calls, limit)), threaded=True)
    return [_or_error(lambda one=one: within(limit, one)) for one in calls]


def within(limit: float | None, call: Callable[[], Any], threaded: bool = False) -> Any:
    """What a call returns, or raises.

    Raises:
        TooSlow: it takes longer than `limit` seconds.
    """
    if limit is None and not threaded:
        return call()
    box: list[tuple[Any, BaseException | None]] = []

    def run() -> None:
        try:
            box.append((call(), None))
        except BaseException as error:
            box.append((None, error))

    thread = threading.Thread(target=run, daemon=True, name="reward")
    thread.start()
    thread.join(limit)
    if not box:
        raise TooSlow(f"took longer than time_limit={limit:g} s")
    value, error = box[0]
    if error is not None:
        raise error
    return value


def _awaited(value: Any, limit: float | None) -> Any:
    if not inspect.isawaitable(value):
        return value
    return within(limit, lambda: asyncio.run(_of(value)), threaded=True)


async def _of(value: Any) -> Any:
    return await value


async def _together(calls: Sequence[Callable[[], Coroutine]], limit: float | None) -> list[Any]:
    async def one(call: Callable[[], Coroutine]) -> Any:
        try:
            return await asyncio.wait_for(call(), limit)
        except TimeoutError:
            return TooSlow(f"took longer than time_limit={limit:g} s") if limit is not None else TimeoutError()

    return await asyncio.gather(*(one(call) for call in calls), return_exceptions=True)


def _or_error(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        return error


def told(error: BaseException) -> str:
    """What went wrong, in one line."""
    if isinstance(error, TooSlow):
        return str(error)
    reason = str(error).strip().splitlines()[:1]
    return f"raised {type(error).__name__}: {reason[0] if reason else 'no message'}"
