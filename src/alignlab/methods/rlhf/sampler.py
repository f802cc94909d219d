"""The sampler must be the policy: which backend generates, and how it is found out that it samples from another model.

Legend: B responses, T response tokens of the longest.
"""

import torch
from torch import Tensor, nn

from alignlab.inference.backend import Backend
from alignlab.inference.backends.compiled import CompiledBackend
from alignlab.inference.backends.transformers import TransformersBackend
from alignlab.inference.native.adapters import live_adapters
from alignlab.inference.native.families import describe
from alignlab.losses.chunked_head import token_statistics
from alignlab.methods.rlhf.rollout import Trajectory
from alignlab.models.language.actor_critic import ActorCritic
from alignlab.models.language.quantized import packed

# nats, mean over tokens: where all is float32, and elsewhere; healthy samplers stay far below both
TOLERANCE = {True: 1e-3, False: 0.2}


def default_backend(model: nn.Module) -> Backend:
    """Our own decode loop where it can run a live model of this kind, else the one of transformers."""
    try:
        live_adapters(model, describe(model.config))
    except ValueError:
        return TransformersBackend()
    return TransformersBackend() if packed(model) else CompiledBackend()


def sampler_error(t: Trajectory) -> Tensor:
    """Mean difference between what the sampler and what the policy say about the sampled tokens, nats, ()."""
    return torch.where(t.mask, t.sampled - t.logprob, 0.0).abs().sum() / t.length.sum()


def check_sampler(error: float, backend: Backend, model: nn.Module, corrected: bool = False) -> None:
    """Judges a `sampler_error`. Every KL estimate would be biased by a wrong sampler, and often negative.

    corrected: whether the objective makes up for a sampler that is nearly the policy (`sampler_ratio_max`).

    Raises:
        RuntimeError: sampler and policy are different models.
    """
    exact = {p.dtype for p in model.parameters()} == {torch.float32} and packed(model) is None
    exact &= not corrected and not torch.is_autocast_enabled(next(model.parameters()).device.type)
    if error > TOLERANCE[exact]:
        corrigible = exact and error < TOLERANCE[False]
        raise RuntimeError(
            f"{type(backend).__name__} samples from another model than the policy: log-probabilities differ by "
            f"{error:.3g} on average"
            + ("; objective.sampler_ratio_max=2 makes up for as little as that" if corrigible else "")
        )


def verify_head(net: ActorCritic, ids: Tensor, tolerance: float) -> None:
    """Compares our way to log-probabilities (trunk, then output layer, no mask) with the model's own forward pass.

    Raises:
        ValueError: the model does something between its trunk and its logits that we don't (soft caps, scales).
    """
    with torch.no_grad():
        logits = net.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits.float()
        wanted = logits[:, :-1].log_softmax(2).gather(2, ids[:, 1:, None]).flatten()
        hidden = net.hidden(ids)[:, :-1].flatten(0, 1)
        ours = token_statistics(hidden, net.head.weight, ids[:, 1:].flatten(), bias=net.head.bias).logprob
    worst = (wanted - ours).abs().max().item()
    if worst > tolerance:
        raise ValueError(
            f"{type(net.model).__name__} is not supported: its logits are more than its output layer "
            f"(log-probabilities differ by {worst:.3g})"
        )
