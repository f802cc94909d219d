"""The exact gradient of a loss over a large batch with the activations of a small one, by embedding twice (GradCache,
arXiv:2101.06983, sec. 3).

A contrastive loss reads the whole batch, but only through its embeddings. So the batch is embedded part by part
without a graph, the loss gives the gradient of every embedding, and each part is embedded once more, now with a graph,
to pass its share on to the parameters.
Legend: N rows of the batch, M rows of a part, D width.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from alignlab.cost.flops import repeated

Outputs = Sequence[Tensor | None]  # of one part: first those with a row per sample, then those that all parts share


def cached_gradient_loss(
    embed: Callable[[Any], Outputs],
    parts: Sequence[Any],
    loss: Callable[..., Tensor],
    *,
    num_rowwise: int,
    weight: Tensor | float = 1.0,
) -> Tensor:
    """Return loss(*outputs of all parts) as a scalar whose `backward()` completes its gradient in the parameters.

    embed: a part -> outputs, of which the first `num_rowwise` have a row (M, ...) per sample and are laid end to end
    (N, ...) for the loss; the others, such as a temperature, do not depend on the part. Random numbers drawn in
    `embed` are drawn again as they were. When this returns, the gradients of all parts but one, times `weight`, have
    been added to the parameters' `grad` already: weight is what the caller's own backward pass multiplies the result
    with. That the last part is left to the caller is what lets DDP exchange
    gradients once, after the sum over parts: its hooks keep still until the step that it wraps has returned.
    Of K parts all but one are embedded twice: the FLOPs grow by (K - 1) / 3K, a backward pass counting as two forward
    passes.
    """
    *others, kept = parts
    assert others, "a batch of one part needs no cache"
    states, cached = [], []
    with torch.no_grad(), repeated():
        for part in others:
            states.append(_RandomState())
            cached.append(list(embed(part))[:num_rowwise])
    torch.clear_autocast_cache()  # weights that were cast above have no graph
    outputs = embed(kept)
    value, rowwise, rest = _gradients(loss, [*cached, outputs], num_rowwise)
    _backward(outputs[:num_rowwise], rowwise[-1], weight)
    del outputs
    for part, state, gradients in zip(others[:-1], states, rowwise, strict=False):
        with state.replayed():
            outputs = embed(part)
        _backward(outputs[:num_rowwise], gradients, weight)
        del outputs  # before the next part asks for the same memory
    with states[-1].replayed():
        outputs = embed(others[-1])
    return _Completion.apply(value, (*rowwise[-2], *rest), *outputs)


def check_rows_are_independent(net: nn.Module) -> None:
    """Raises ValueError if a module that is learning normalises over the batch, so that parts would
    not be the whole.
    """
    for name, module in net.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            raise ValueError(
                f"micro_batch_size is not exact for a net with batch normalisation ({name}), whose statistics would "
                "be those of a part: "
                "set it to null, freeze that tower, or take a transformer"
            )


class _RandomState:
    """Where the random numbers of this process and its GPU stand."""

    def __init__(self) -> None:
        self._devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
        self._cpu, self._gpu = torch.get_rng_state(), [torch.cuda.get_rng_state(d) for d in self._devices]

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Draw the same numbers again, and go on afterwards as if nothing had been drawn."""
        with torch.random.fork_rng(self._devices):
            torch.set_rng_state(self._cpu)
            for device, state in zip(self._devices, self._gpu, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield


class _Completion(torch.autograd.Function):
    """The loss's value; backward hands the last part the gradients that are known already."""

    @staticmethod
    def forward(ctx, value: Tensor, gradients: tuple[Tensor | None, ...], *outputs: Tensor | None) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, weight: Tensor):
        return (None, None, *(None if gradient is None else gradient * weight for gradient in ctx.gradients))


def _gradients(
    loss: Callable[..., Tensor], parts: Sequence[Outputs], num_rowwise: int
) -> tuple[Tensor, list[list[Tensor]], list[Tensor | None]]:
    """The loss, its gradients of every part's rows, and those of what the parts share."""
    sizes = [len(part[0]) for part in parts]
    joint = [torch.cat([part[i] for part in parts]).detach().requires_grad_() for i in range(num_rowwise)]
    shared = [None if x is None else x.detach().requires_grad_() for x in parts[-1][num_rowwise:]]
    value = loss(*joint, *shared)
    with torch.autocast(value.device.type, enabled=False):
        value.backward()  # not autograd.grad, which hooks such as FLOP counters' don't bear
    by_output = [x.grad.split(sizes) for x in joint]
    return (
        value.detach(),
        [list(part) for part in zip(*by_output, strict=True)],
        [None if x is None else x.grad for x in shared],
    )


def _backward(outputs: Sequence[Tensor], gradients: Sequence[Tensor], weight: Tensor | float) -> None:
    # as in Lightning the backward pass runs without autocast, which would round what the forward pass kept in fp32
    with torch.autocast(outputs[0].device.type, enabled=False):
        torch.autograd.backward(outputs, [gradient * weight for gradient in gradients])
