"""Log-probabilities and losses of tokens straight from hidden states: never more than a chunk of logits exists.

Legend: N tokens, D width, V vocabulary, C tokens of a chunk. With C tokens at a time the logits take C V numbers
instead of N V.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class TokenStatistics(NamedTuple):
    """What a head says about given tokens, in float32."""

    logprob: Tensor  # (N,) of the token, nats
    entropy: Tensor | None  # (N,) of the whole distribution, nats


TokenLoss = Callable[[Tensor, Tensor | None, slice], Tensor]  # logprob (C,), entropy (C,), which tokens -> summed loss


def chunk_size(vocabulary: int, megabytes: float = 32.0) -> int:
    """Tokens whose float32 logits take about so many megabytes, a multiple of 16."""
    return max(16, int(megabytes * 2**20 / (4 * vocabulary)) // 16 * 16)


def token_statistics(
    hidden: Tensor,
    weight: Tensor,
    ids: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    entropy: bool = False,
    chunk: int | None = None,
) -> TokenStatistics:
    """log softmax((W h + b) / temperature)[id] and the entropy of that distribution, with gradient to hidden, weight
    and bias.

    The backward pass computes the logits again. hidden (N, D), weight (V, D), ids (N,) int64.
    """
    chunk = chunk or chunk_size(len(weight))
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
        logprob, h = _Statistics.apply(hidden, weight, bias, ids, temperature, entropy, chunk)
        return TokenStatistics(logprob, h if entropy else None)
    return _statistics(hidden, weight, bias, ids, temperature, entropy, chunk)


def token_loss(
    hidden: Tensor,
    weight: Tensor,
    ids: Tensor,
    loss: TokenLoss,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    entropy: bool = False,
    chunk: int | None = None,
) -> Tensor:
    """Sum of a loss that is separable over tokens, with its gradient computed in the same pass: one product with W
    less than `token_statistics`.

    `loss(logprob, entropy, tokens)` gets a chunk's statistics and which tokens they belong to, and returns their
    summed loss. -> ().
    """
    return _FusedLoss.apply(
        hidden, weight, bias, ids, loss, temperature, entropy, chunk or chunk_size(len(weight)), torch.is_grad_enabled()
    )


class _LogProbs:
    """log softmax of a chunk's logits, in float32, in a buffer that the next chunk overwrites.

    On a CPU fresh memory costs as much as a pass over it, and a fused log-softmax keeps a row in the cache where a
    log-sum-exp writes it out twice.
    """

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float, chunk: int) -> None:
        self.weight = weight.to(hidden.dtype)
        self.bias = None if bias is None else bias.to(hidden.dtype)
        self.temperature = temperature
        plain = hidden.dtype == torch.float32 and not torch.is_autocast_enabled(hidden.device.type)
        self.buffer = hidden.new_empty(min(chunk, len(hidden)), len(weight)) if plain else None

    def __call__(self, hidden: Tensor) -> Tensor:
        """(C, D) -> (C, V)."""
        if self.buffer is None:
            logits = torch.nn.functional.linear(hidden, self.weight, self.bias).float()
        else:
            logits = torch.mm(hidden, self.weight.T, out=self.buffer[: len(hidden)])
            if self.bias is not None:
                logits += self.bias
        if self.temperature != 1.0:
            logits /= self.temperature
        return torch.log_softmax(logits, 1, out=logits)


@torch.no_grad()
def _statistics(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, ids: Tensor, temperature: float, entropy: bool, chunk: int
) -> TokenStatistics:
    logprobs, entropies = [], []
    log_probs = _LogProbs(hidden, weight, bias, temperature, chunk)
    for start in range(0, len(ids), chunk):
        part = slice(start, start + chunk)
        log_p = log_probs(hidden[part])
        logprobs.append(_of(ids[part], log_p))
        if entropy:
            entropies.append(-torch.linalg.vecdot(log_p.exp(), log_p))
    none = torch.zeros(0, device=hidden.device)
    return TokenStatistics(torch.cat([*logprobs, none]), torch.cat([*entropies, none]) if entropy else None)


def _of(ids: Tensor, log_p: Tensor) -> Tensor:
    return log_p.gather(1, ids[:, None]).squeeze(1)


class _Gradient:
    """Sums up the gradients of hidden states, weight and bias over chunks; what is not needed stays None."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, needed: tuple[bool, bool, bool]) -> None:
        self.source, self.matrix = hidden, weight
        self.hidden = torch.empty_like(hidden) if needed[0] else None
        self.weight = torch.empty_like(weight, dtype=torch.float32) if needed[1] else None
        self.empty = True  # nothing was added yet
        self.bias = torch.zeros_like(bias, dtype=torch.float32) if needed[2] else None

    def add(
        self,
        part: slice,
        log_p: Tensor,
        ids: Tensor,
        to_logprob: Tensor,
        to_entropy: Tensor | None,
        entropy: Tensor | None,
        temperature: float,
    ) -> None:
        """d logp_y / d s = [y] - p; d H / d s = -p (log p + H); s the logits over the temperature. Destroys log_p."""
        to_logprob = to_logprob / temperature
        if to_entropy is None:
            # -diag(g) p W = -g (p W): the factors go to the narrow side, and no one-hot is added to the wide one.
            wide, factor = log_p.exp_(), -to_logprob
        else:
            p = log_p.exp()
            wide = log_p.add_(entropy[:, None]).mul_((-to_entropy / temperature)[:, None]).sub_(to_logprob[:, None])
            wide, factor = wide.mul_(p), torch.ones_like(to_logprob)
        hidden, wide = self.source[part], wide.to(self.source.dtype)
        narrow, own = hidden * factor[:, None].to(hidden.dtype), hidden * to_logprob[:, None].to(hidden.dtype)
        if self.bias is not None:
            self.bias += factor @ wide.float()
            self.bias.index_add_(0, ids, to_logprob)
        if self.hidden is not None:
            matrix = self.matrix.to(wide.dtype)
            torch.mm(wide, matrix, out=self.hidden[part])
            self.hidden[part] *= factor[:, None]
            self.hidden[part] += matrix[ids] * to_logprob[:, None]
        if self.weight is not None:
            if self.weight.dtype == wide.dtype:
                self.weight.addmm_(wide.T, narrow, beta=0.0 if self.empty else 1.0)
            else:
                if self.empty:
                    self.weight.zero_()
                self.weight += wide.T @ narrow
            self.empty = False
            self.weight.index_add_(0, ids, own.to(self.weight.dtype))

    def result(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        if self.weight is not None and self.empty:
            self.weight.zero_()
        weight = None if self.weight is None else self.weight.to(self.matrix.dtype)
        return self.hidden, weight, self.bias


class _Statistics(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, ids, temperature, entropy, chunk):
        ctx.save_for_backward(hidden, weight, bias, ids)
        ctx.settings = temperature, entropy, chunk
        statistics = _statistics(hidden, weight, bias, ids, temperature, entropy, chunk)
        return statistics.logprob, statistics.entropy if entropy else torch.zeros_like(statistics.logprob)

    @staticmethod
    def backward(ctx, to_logprob, to_entropy):
        hidden, weight, bias, ids = ctx.saved_tensors
        temperature, entropy, chunk = ctx.settings
        gradient = _Gradient(hidden, weight, bias, tuple(ctx.needs_input_grad[:3]))
        log_probs = _LogProbs(hidden, weight, bias, temperature, chunk)
        for start in range(0, len(ids), chunk):
            part = slice(start, start + chunk)
            log_p = log_probs(hidden[part])
            h = -torch.linalg.vecdot(log_p.exp(), log_p) if entropy else None
            gradient.add(
                part, log_p, ids[part], to_logprob[part], to_entropy[part] if entropy else None, h, temperature
            )
        return *gradient.result(), None, None, None, None


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, ids, loss, temperature, entropy, chunk, with_gradient):
        needed = tuple(with_gradient and needed for needed in ctx.needs_input_grad[:3])
        gradient = _Gradient(hidden, weight, bias, needed)
        total = torch.zeros((), device=hidden.device)
        log_probs = _LogProbs(hidden, weight, bias, temperature, chunk)
        for start in range(0, len(ids), chunk):
            part = slice(start, start + chunk)
            log_p = log_probs(hidden[part])
            logprob = _of(ids[part], log_p)
            h = -torch.linalg.vecdot(log_p.exp(), log_p) if entropy else None
            with torch.enable_grad():
                inputs = [x.detach().requires_grad_() for x in (logprob, h) if x is not None]
                value = loss(inputs[0], inputs[1] if entropy else None, part)
            total += value.detach()
            if any(needed):
                gradients = torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)
                gradient.add(part, log_p, ids[part], gradients[0], gradients[1] if entropy else None, h, temperature)
        ctx.gradients = gradient.result()
        return total

    @staticmethod
    def backward(ctx, scale):
        gradients, ctx.gradients = ctx.gradients, None  # scaled where they lie: there is no second time
        scaled = (None if g is None else g.mul_(scale) for g in gradients)
        return *scaled, None, None, None, None, None, None
