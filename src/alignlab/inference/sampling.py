"""Chooses tokens: filters, one uniform number a token from the request's own generator, and the chosen tokens'
log-probabilities.

Legend: B rows, V vocabulary, T new tokens, P tokens of the longest prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from alignlab.distributed.devices import sent
from alignlab.inference.backend import Request, Sampling

AllowedTokens = Callable[[list[int]], Tensor]  # new tokens so far -> (V,) mask, True = may come next
GREEDY, TEMPERATURE, TOP_K, TOP_P, MIN_P, PENALTY = range(6)  # columns of a table of settings
COLUMNS = 6
BLOCK = 256  # probabilities that are summed up before any is looked at
COLDEST = 1e-30  # logits over less than this are beyond fp32


def check(sampling: Sampling) -> None:
    """A `ValueError` for a value that has no meaning."""
    temperature, penalty = sampling.temperature, sampling.repetition_penalty
    limits = [
        ("max_new_tokens", sampling.max_new_tokens >= 1, "at least 1"),
        ("temperature", temperature == 0 or temperature >= COLDEST, f"0 (greedy) or at least {COLDEST:g}"),
        ("top_k", sampling.top_k >= 0, "at least 0 (0 = off)"),
        ("top_p", 0 < sampling.top_p <= 1, "above 0 and at most 1"),
        ("min_p", 0 <= sampling.min_p <= 1, "between 0 and 1"),
        ("repetition_penalty", 1e-6 <= penalty <= 1e6, "between 1e-6 and 1e6 (1 = off)"),
        ("stop", "" not in sampling.stop, "without the empty text, which every reply holds"),
    ]
    for name, fine, limit in limits:
        if not fine:
            raise ValueError(f"{name}={getattr(sampling, name)} must be {limit}")


class Choice(NamedTuple):
    """What the requests of a batch ask for together: which operations run is known on the host, and the device is
    never asked.
    """

    sampled: bool = False  # any
    greedy: bool = True  # any
    scaled: bool = False  # a temperature other than 1
    penalised: bool = False
    top_k: int = 0  # the largest, rounded up to a power of two
    top_p: bool = False
    min_p: bool = False

    @classmethod
    def of(cls, settings: Sequence[Sampling], vocabulary: int) -> Choice:
        """Of the rows that run together."""
        drawn = [s for s in settings if s.temperature != 0]
        top_k = max((s.top_k for s in drawn), default=0)
        return cls(
            sampled=bool(drawn),
            greedy=not drawn or len(drawn) < len(settings),
            scaled=any(s.temperature != 1 for s in drawn),
            penalised=any(s.repetition_penalty != 1 for s in settings),
            top_k=min(1 << (top_k - 1).bit_length(), vocabulary) if top_k else 0,
            top_p=any(s.top_p < 1 for s in drawn),
            min_p=any(s.min_p > 0 for s in drawn),
        )


def table(settings: Sequence[Sampling], vocabulary: int) -> Tensor:
    """Settings as numbers, a row each, on the host: (B, COLUMNS) fp32."""
    rows = [
        (s.temperature == 0, s.temperature or 1.0, min(s.top_k, vocabulary), s.top_p, s.min_p, s.repetition_penalty)
        for s in settings
    ]
    return torch.tensor(rows, dtype=torch.float32)


def uniform(requests: Sequence[Request], count: int) -> Tensor:
    """Numbers in [0, 1), the t-th of a row from its seed and t alone, on the host: (B, T) fp64."""
    return torch.stack(
        [
            torch.rand(count, generator=torch.Generator().manual_seed(request.seed), dtype=torch.float64)
            for request in requests
        ]
    )


def prompts(requests: Sequence[Request]) -> Tensor:
    """The prompts' tokens in any order, short ones filled up with their first: (B, P) on the host."""
    longest = max(len(request.ids) for request in requests)
    return torch.tensor([request.ids + request.ids[:1] * (longest - len(request.ids)) for request in requests])


def choose(
    logits: Tensor,
    table: Tensor,
    choice: Choice,
    number: Tensor | None,
    seen: Tensor | None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Tokens and their log-probabilities under the model itself at the sampling temperature: (B, V) fp32 -> (B,),
    (B,).

    Nothing here waits for the device, so that it can be part of a CUDA graph; `torch.where` with a number would, as it
    copies the number there.

    Args:
        table: of settings, (B, COLUMNS).
        number: this step's number in [0, 1) of each row, (B, 1) fp64, where any row is sampled.
        seen: (B, V) tokens that were there already, where any row is penalised; the chosen ones are put in.
        mask: (B, V) tokens that constraints allow.
    """
    temperature = table[:, TEMPERATURE, None]
    plain = logits / temperature if choice.scaled else logits
    if choice.penalised:
        penalty = table[:, PENALTY, None]  # arXiv:1909.05858, section 4.1; negative ones are multiplied
        logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    if choice.greedy:
        chosen = logits.argmax(-1)
    if choice.sampled:
        drawn = _draw(logits / temperature if choice.scaled else logits, table, choice, number)
        chosen = torch.where(table[:, GREEDY] != 0, chosen, drawn) if choice.greedy else drawn
    if choice.penalised:
        seen.scatter_(1, chosen[:, None], True)
    return chosen, plain.gather(1, chosen[:, None])[:, 0] - plain.logsumexp(-1)


def told(chosen: Tensor, logprobs: Tensor) -> tuple[list[int], list[float]]:
    """Both as Python's numbers, by one read of the device."""
    tokens, values = torch.stack([chosen.double(), logprobs.double()]).tolist()
    return [int(token) for token in tokens], values


def _draw(logits: Tensor, table: Tensor, choice: Choice, number: Tensor) -> Tensor:
    """Top-k, then top-p of what is left (arXiv:1904.09751), then min-p (arXiv:2407.01082); one token a row."""
    if choice.top_k:
        top_k = table[:, TOP_K, None].long()
        largest = logits.topk(choice.top_k).values
        lowest = largest.gather(1, (top_k - 1).clamp(0, choice.top_k - 1))
        logits = logits.masked_fill((logits < lowest) & (top_k > 0), -torch.inf)
    probabilities = logits.softmax(-1)
    if choice.top_p:
        top_p = table[:, TOP_P, None]
        sorted_p = probabilities.sort(-1, descending=True).values
        before = sorted_p.double().cumsum(-1) - sorted_p  # mass of the likelier ones
        kept = (before < top_p).sum(-1, keepdim=True).clamp_(min=1)
        cut = sorted_p.gather(1, kept - 1).masked_fill(top_p >= 1, 0.0)
        probabilities = probabilities.masked_fill(probabilities < cut, 0.0)
    if choice.min_p:
        cut = table[:, MIN_P, None] * probabilities.amax(-1, keepdim=True)
        probabilities = probabilities.masked_fill(probabilities < cut, 0.0)
    if probabilities.device.type == "cpu":
        return _inverted(probabilities, number)
    total = probabilities.double().cumsum(-1)
    target = number * total[:, -1:]
    return torch.searchsorted(total, target, right=True)[:, 0].clamp_(max=logits.shape[1] - 1)


def _inverted(probabilities: Tensor, number: Tensor) -> Tensor:
    """Where the cumulative sum reaches a share of the whole, (B, V) and (B, 1) -> (B,): first the block, then the place
    in it. A CPU's cumulative sum over all of V takes ten times as long as sums of blocks.
    """
    rest = -probabilities.shape[1] % BLOCK
    whole = nn.functional.pad(probabilities, (0, rest)) if rest else probabilities
    blocks = whole.unflatten(1, (-1, BLOCK))
    total = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    target = number * total[:, -1:]
    block = _reached(total, target)
    before = torch.where(block > 0, total.gather(1, (block - 1).clamp_(min=0)), 0.0)
    inside = blocks.gather(1, block[:, :, None].expand(-1, 1, BLOCK))[:, 0].double().cumsum(-1)
    return (block * BLOCK + _reached(inside, target - before))[:, 0].clamp_(max=probabilities.shape[1] - 1)


def _reached(total: Tensor, target: Tensor) -> Tensor:
    """The first place where a cumulative sum exceeds the target, (B, N) and (B, 1) -> (B, 1); the last that adds
    anything where rounding leaves none.
    """
    last = torch.searchsorted(total, total[:, -1:].contiguous())
    return torch.searchsorted(total, target, right=True).minimum(last).clamp_(max=total.shape[1] - 1)


class Sampler:
    """Chooses one token a row and step, for loops whose batch gets smaller.

    The t-th number of a request's own generator decides its t-th token by inverting the distribution's cumulative sum,
    so that neither the rest of the batch nor its size matters.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        vocabulary: int,
        allowed: Sequence[AllowedTokens | None] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._settings, self._vocabulary = [request.sampling for request in requests], vocabulary
        self._allowed = list(allowed or [None] * len(requests))
        self._choice = Choice.of(self._settings, vocabulary)
        self._seen: Tensor | None = None  # (B, V)
        if self._choice.penalised:
            seen = torch.zeros(len(requests), vocabulary, dtype=torch.bool, device=device)
            self._seen = seen.scatter_(1, sent(prompts(requests), device), True)
        numbers = [table(self._settings, vocabulary).double()]
        if self._choice.sampled:
            numbers.append(uniform(requests, max(s.max_new_tokens for s in self._settings)))
        together = sent(torch.cat(numbers, 1), device)  # one copy
        self._table, self._uniform = together[:, :COLUMNS].float(), together[:, COLUMNS:]
        self._step = 0

    def keep(self, rows: Sequence[int], index: Tensor) -> None:
        """Forget all rows but these; `index` holds the same on the device."""
        self._settings, self._allowed = ([each[row] for row in rows] for each in (self._settings, self._allowed))
        self._choice = Choice.of(self._settings, self._vocabulary)
        self._table, self._uniform = self._table[index], self._uniform[index]
        self._seen = None if self._seen is None else self._seen[index]

    def choose(self, logits: Tensor, new_ids: Sequence[list[int]] = ()) -> tuple[Tensor, Tensor]:
        """One step of `choose`: (B, V) fp32 -> (B,), (B,).

        Args:
            new_ids: what each row has generated so far; only constraints look at it.
        """
        number = self._uniform[:, self._step, None] if self._choice.sampled else None
        self._step += 1
        return choose(logits, self._table, self._choice, number, self._seen, self._mask(new_ids, logits.device))

    def _mask(self, new_ids: Sequence[list[int]], device: torch.device) -> Tensor | None:
        if not any(self._allowed):
            return None
        everything = torch.ones(self._vocabulary, dtype=torch.bool)
        masks = [
            everything if allowed is None else allowed(new_ids[row]).cpu() for row, allowed in enumerate(self._allowed)
        ]
        return sent(torch.stack(masks), device)
