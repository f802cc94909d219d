"""Divergence between a student's and a teacher's distributions, straight from hidden states, with a chunk of logits at
a time.

Legend: N tokens, V vocabulary, C tokens of a chunk; D_s and D_t widths of student and teacher.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from alignlab.losses.chunked_head import chunk_size

Head = Callable[[Tensor], Tensor]  # states (C, D) -> logits (C, V)


def generalized_jsd(student: Tensor, teacher: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Generalized Jensen-Shannon divergence and its gradient by the student's logits (arXiv:2306.13649, eq. 1).

    beta KL(T | M) + (1 - beta) KL(S | M) with M = beta T + (1 - beta) S; at 0 and at 1, where that vanishes, KL(T | S)
    ("forward") and KL(S | T) ("reverse"), as huggingface/trl v1.12.0 has it (trl/experimental/gkd/gkd_trainer.py).
    student, teacher: log-probabilities (C, V), float32. -> nats (C,), (C, V).
    """
    p = student.exp()
    if beta == 0:
        q = teacher.exp()
        return torch.linalg.vecdot(q, teacher - student), p - q
    if beta == 1:
        ratio = student - teacher
        divergence = torch.linalg.vecdot(p, ratio)
        return divergence, p * (ratio - divergence[:, None])
    mixture = torch.logaddexp(student + math.log1p(-beta), teacher + math.log(beta))
    ratio = student - mixture
    of_student = torch.linalg.vecdot(p, ratio)
    of_teacher = torch.linalg.vecdot(teacher.exp(), teacher - mixture)
    # What the mixture's own change adds is a constant over the vocabulary, which a softmax doesn't see.
    return beta * of_teacher + (1 - beta) * of_student, (1 - beta) * p * (ratio - of_student[:, None])


def distillation_loss(
    hidden: Tensor,
    weight: Tensor,
    teacher_hidden: Tensor,
    teacher_head: Head,
    token_weight: Tensor,
    *,
    bias: Tensor | None = None,
    beta: float = 0.5,
    temperature: float = 1.0,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Weighted sum of `generalized_jsd` over tokens, with gradient to hidden, weight and bias, and each token's
    divergence without one.

    Never more than a chunk of logits of either exists; the gradient is computed in the same pass. Both distributions
    are taken at `temperature`, over the ids that both have: models of one family are padded to other sizes.

    hidden (N, D_s), weight (V, D_s), bias (V,), teacher_hidden (N, D_t), token_weight (N,). -> (), (N,).
    """
    chunk = chunk or chunk_size(2 * len(weight))
    return _Divergence.apply(
        hidden,
        weight,
        bias,
        teacher_hidden,
        teacher_head,
        token_weight,
        (beta, temperature, chunk, torch.is_grad_enabled()),
    )


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, teacher_hidden, teacher_head, token_weight, settings):
        beta, temperature, chunk, with_gradient = settings
        size = min(len(weight), teacher_head(teacher_hidden[:0]).shape[1])
        matrix, shift = weight[:size].to(hidden.dtype), None if bias is None else bias[:size].to(hidden.dtype)
        gradients = [
            torch.zeros_like(x, dtype=torch.float32) if with_gradient and wanted else None
            for x, wanted in zip((hidden, weight, bias), ctx.needs_input_grad[:3], strict=True)
        ]
        parts = [hidden.new_zeros(0, dtype=torch.float32)]
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            student = torch.nn.functional.linear(hidden[part], matrix, shift).float()
            teacher = teacher_head(teacher_hidden[part])[:, :size].float()
            student, teacher = (torch.log_softmax(x / temperature, 1) for x in (student, teacher))
            divergence, gradient = generalized_jsd(student, teacher, beta)
            parts.append(divergence)
            _add(gradients, part, hidden[part], matrix, gradient * (token_weight[part] / temperature)[:, None])
        divergences = torch.cat(parts)
        ctx.gradients = [
            None if g is None else g.to(x.dtype) for g, x in zip(gradients, (hidden, weight, bias), strict=True)
        ]
        ctx.mark_non_differentiable(divergences)
        return (divergences * token_weight).sum(), divergences

    @staticmethod
    def backward(ctx, scale, _):
        gradients, ctx.gradients = ctx.gradients, None  # scaled where they lie: there is no second time
        return *(None if g is None else g.mul_(scale) for g in gradients), None, None, None, None


def _add(gradients: list[Tensor | None], part: slice, states: Tensor, matrix: Tensor, by_logits: Tensor) -> None:
    """Adds the share of a chunk, whose loss has the gradient by_logits (C, V)."""
    of_hidden, of_weight, of_bias = gradients
    narrow = by_logits.to(states.dtype)
    if of_hidden is not None:
        of_hidden[part] = narrow @ matrix
    if of_weight is not None:
        of_weight[: len(matrix)] += narrow.T @ states
    if of_bias is not None:
        of_bias[: len(matrix)] += by_logits.sum(0)
