"""Keeps account of the requests of a batch: tokens so far, why each ended, and the calls that report them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from alignlab.inference.backend import Completion, Request
from alignlab.inference.sampling import check

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OnToken = Callable[[int, int], None]
OnDone = Callable[[int, Completion], None]


def refusal(request: Request, vocabulary: int, max_positions: int | None) -> str | None:
    """Why a request cannot run, in one line; None if it can."""
    if not request.ids:
        return "the prompt is empty; it needs at least one token"
    wrong = next((token for token in request.ids if not 0 <= token < vocabulary), None)
    if wrong is not None:
        return f"token {wrong} is outside the model's vocabulary of {vocabulary}"
    if max_positions is not None and len(request.ids) >= max_positions:
        return f"the prompt has {len(request.ids)} tokens and leaves no room in the model's context of {max_positions}"
    try:
        check(request.sampling)
    except ValueError as error:
        return str(error)
    return None


def refused(
    requests: Sequence[Request], vocabulary: int, max_positions: int | None, on_done: OnDone | None
) -> dict[int, Completion]:
    """Completions of the requests that cannot run, by their number; the others are not in it."""
    reasons = {}
    for number, request in enumerate(requests):
        reason = refusal(request, vocabulary, max_positions)
        if reason is not None:
            reasons[number] = Completion([], [], "error", reason)
            if on_done is not None:
                on_done(number, reasons[number])
    return reasons


def check_lengths(sequences: Sequence[list[int]], max_positions: int | None) -> None:
    """A `ValueError` for a sequence that is longer than the model's context."""
    longest = max(map(len, sequences), default=0)
    if max_positions is not None and longest > max_positions:
        raise ValueError(f"a text has {longest} tokens; the model's context is {max_positions}")


class Rows:
    """The requests of one batch while they run.

    Args:
        numbers: their numbers among all requests, for the calls.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        numbers: Sequence[int],
        *,
        eos: frozenset[int],
        max_positions: int | None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        on_token: OnToken | None = None,
        on_done: OnDone | None = None,
    ) -> None:
        self.requests, self.numbers, self.eos, self.tokenizer = requests, numbers, eos, tokenizer
        self.on_token, self.on_done = on_token, on_done
        self.ids: list[list[int]] = [[] for _ in requests]
        self.logprobs: list[list[float]] = [[] for _ in requests]
        self.done: dict[int, Completion] = {}
        self.limits = [min(r.sampling.max_new_tokens, (max_positions or 1 << 60) - len(r.ids)) for r in requests]
        if tokenizer is None and any(r.sampling.stop for r in requests):
            raise ValueError("stop holds strings, which need the model's tokenizer; use stop_ids")

    def advance(self, rows: Sequence[int], tokens: Sequence[int], logprobs: Sequence[float]) -> list[int]:
        """Takes up one token each for these rows and gives those that go on."""
        going = []
        for row, token, logprob in zip(rows, tokens, logprobs, strict=True):
            self.ids[row].append(token)
            self.logprobs[row].append(logprob)
            if self.on_token is not None:
                self.on_token(self.numbers[row], token)
            finish = self._finish(row, token)
            if finish is None:
                going.append(row)
                continue
            self.done[row] = Completion(self.ids[row], self.logprobs[row], finish)
            if self.on_done is not None:
                self.on_done(self.numbers[row], self.done[row])
        return going

    def _finish(self, row: int, token: int) -> str | None:
        sampling = self.requests[row].sampling
        if token in self.eos and not sampling.ignore_eos:
            return "eos"
        if token in sampling.stop_ids or (sampling.stop and self._stopped(row)):
            return "stop"
        return "length" if len(self.ids[row]) >= self.limits[row] else None

    def _stopped(self, row: int) -> bool:
        """Whether the last token completed a stop string: a character takes four tokens at most, so
        few need decoding.
        """
        stop = self.requests[row].sampling.stop
        tail = self.ids[row][-(4 * max(map(len, stop)) + 4) :]
        text = self.tokenizer.decode(tail)
        return any(string in text for string in stop)
