"""Chooses tokens: filters, one uniform number a token from the request's own generator, and the chosen tokens' log-probabilities.

Legend: B rows, V vocabulary, T new tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from alignlab.inference.backend import Request, Sampling

AllowedTokens = Callable[[list[int]], Tensor]  # new tokens so far -> (V,) mask, True = may come next


def check(sampling: Sampling) -> None:
    """A `ValueError` for a value that has no meaning."""
    limits = [
        ("max_new_tokens", sampling.max_new_tokens >= 1, "at least 1"),
        ("temperature", sampling.temperature >= 0, "at least 0 (0 = greedy)"),
        ("top_k", sampling.top_k >= 0, "at least 0 (0 = off)"),
        ("top_p", 0 < sampling.top_p <= 1, "above 0 and at most 1"),
        ("min_p", 0 <= sampling.min_p <= 1, "between 0 and 1"),
        ("repetition_penalty", sampling.repetition_penalty > 0, "above 0 (1 = off)"),
    ]
    for name, fine, limit in limits:
        if not fine:
            raise ValueError(f"sampling.{name}={getattr(sampling, name)} must be {limit}")


class Sampler:
    """Chooses one token a row and step.

    The t-th number of a request's own generator decides its t-th token by inverting the distribution's cumulative sum, so that
    neither the rest of the batch nor its size matters.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        vocabulary: int,
        allowed: Sequence[AllowedTokens | None] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, device=device)[:, None]

        settings = [request.sampling for request in requests]
        greedy = [s.temperature == 0 for s in settings]
        self._sampled = not all(greedy)
        self._greedy = torch.tensor(greedy, device=device)
        self._temperature = column([s.temperature or 1.0 for s in settings])
        self._scaled = any(s.temperature not in (0.0, 1.0) for s in settings)
        self._top_k = [min(s.top_k, vocabulary) for s in settings]
        self._top_p = column([s.top_p for s in settings])
        self._min_p = column([s.min_p for s in settings])
        self._penalty = column([s.repetition_penalty for s in settings])
        self._allowed = list(allowed or [None] * len(settings))
        self._seen: Tensor | None = None  # (B, V)
        if any(s.repetition_penalty != 1 for s in settings):
            self._seen = torch.zeros(len(settings), vocabulary, dtype=torch.bool)
            for row, request in enumerate(requests):
                self._seen[row, torch.tensor(request.ids)] = True
            self._seen = self._seen.to(device)
        if self._sampled:
            self._uniform = torch.stack(_uniform(requests)).to(device)  # (B, T)
        self._step = 0

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these."""
        for name in ("_greedy", "_temperature", "_top_p", "_min_p", "_penalty", "_seen"):
            value = getattr(self, name)
            setattr(self, name, None if value is None else value[rows])
        self._top_k = [self._top_k[row] for row in rows.tolist()]
        self._allowed = [self._allowed[row] for row in rows.tolist()]
        self._sampled = not bool(self._greedy.all())
        if self._sampled:
            self._uniform = self._uniform[rows]

    def choose(self, logits: Tensor, new_ids: Sequence[list[int]] = ()) -> tuple[Tensor, Tensor]:
        """Tokens and their log-probabilities under the model itself at the sampling temperature: (B, V) fp32 -> (B,), (B,).

        Args:
            new_ids: what each row has generated so far; only constraints look at it.
        """
        plain = logits / self._temperature if self._scaled else logits
        biased = self._constrained(self._penalised(logits), new_ids)
        chosen = biased.argmax(-1)
        if self._sampled:
            drawn = self._draw(biased / self._temperature)
            chosen = torch.where(self._greedy, chosen, drawn)
        if self._seen is not None:
            self._seen.scatter_(1, chosen[:, None], True)
        self._step += 1
        return chosen, plain.gather(1, chosen[:, None])[:, 0] - plain.logsumexp(-1)

    def _penalised(self, logits: Tensor) -> Tensor:
        """Logits of seen tokens divided (negative ones multiplied) by the penalty (arXiv:1909.05858, section 4.1)."""
        if self._seen is None:
            return logits
        return torch.where(self._seen, torch.where(logits > 0, logits / self._penalty, logits * self._penalty), logits)

    def _constrained(self, logits: Tensor, new_ids: Sequence[list[int]]) -> Tensor:
        if not any(self._allowed):
            return logits
        logits = logits.clone()
        for row, allowed in enumerate(self._allowed):
            if allowed is not None:
                logits[row, ~allowed(new_ids[row]).to(logits.device)] = -torch.inf
        return logits

    def _draw(self, logits: Tensor) -> Tensor:
        """Top-k, then top-p of what is left (arXiv:1904.09751), then min-p (arXiv:2407.01082); one token a row."""
        if any(self._top_k):
            for row, k in enumerate(self._top_k):
                if k:
                    logits[row, logits[row] < logits[row].topk(k).values[-1]] = -torch.inf
        probabilities = logits.softmax(-1)
        if bool((self._top_p < 1).any()):
            sorted_p = probabilities.sort(-1, descending=True).values
            before = sorted_p.double().cumsum(-1) - sorted_p  # mass of the likelier ones
            kept = (before < self._top_p).sum(-1, keepdim=True).clamp_(min=1)
            cut = torch.where(self._top_p < 1, sorted_p.gather(1, kept - 1), 0.0)
            probabilities = torch.where(probabilities >= cut, probabilities, 0.0)
        if bool((self._min_p > 0).any()):
            cut = self._min_p * probabilities.amax(-1, keepdim=True)
            probabilities = torch.where(probabilities >= cut, probabilities, 0.0)
        total = probabilities.double().cumsum(-1)
        target = self._uniform[:, self._step, None] * total[:, -1:]
        return torch.searchsorted(total, target, right=True)[:, 0].clamp_(max=logits.shape[1] - 1)


def _uniform(requests: Sequence[Request]) -> list[Tensor]:
    """Numbers in [0, 1) for every request, padded to the longest: the t-th depends on the seed and t alone."""
    longest = max(request.sampling.max_new_tokens for request in requests)
    numbers = []
    for request in requests:
        generator = torch.Generator().manual_seed(request.seed)
        numbers.append(torch.rand(longest, generator=generator, dtype=torch.float64))
    return numbers
