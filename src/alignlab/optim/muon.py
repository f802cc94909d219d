"""Muon for hidden matrices, AdamW for everything else, as one optimizer: `optim=muon`.

Muon replaces a matrix's momentum by the nearest orthogonal matrix, so that all its directions move at the same speed
(Jordan et al., 2024; at scale arXiv:2502.16982). On small data it leaves the plateau of contrastive training several
times sooner than AdamW. Orthogonalising needs a whole matrix: where a strategy has cut the parameters up, everything
else happens on the pieces and the update of one matrix at a time is put together (`MuonAdamW.assemble`).
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from alignlab.optim.adamw import Schedule, learning_rate
from alignlab.optim.parameter_groups import Decay, parameter_groups

# From what a rank stores (a DTensor, or ZeRO's flat piece of several parameters) and the update of that piece, in the
# same form: each matrix of that update in turn, whole, and a function that puts this rank's part of a whole matrix in
# its place. All ranks iterate together.
Assemble = Callable[[Tensor, Tensor], Iterator[tuple[Tensor, Callable[[Tensor], None]]]]


class MuonAdamW(torch.optim.Optimizer):
    """torch's Muon and AdamW side by side, sharing parameter groups and state with this object.

    matrices, others: parameter groups, each with its own lr and weight_decay; matrices hold 2-d parameters only.
    """

    def __init__(
        self, matrices: list[dict], others: list[dict], *, momentum: float, betas: tuple[float, float], eps: float
    ) -> None:
        # "match_rms_adamw" scales an orthogonal step to the size of AdamW's, so that one learning rate serves both.
        self.parts = (
            torch.optim.Muon(matrices, momentum=momentum, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, betas=betas, eps=eps, fused=True),
        )
        self.assemble: Assemble | None = None  # set by strategies that cut parameters up
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        for part, muons in zip(self.parts, (True, False), strict=True):
            part.param_groups = [group for group in self.param_groups if ("ns_steps" in group) == muons]
            part.state = self.state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both; `closure` recomputes the loss first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._share()  # ZeRO steps one group at a time
        self.parts[1].step()
        if self.assemble is None:
            self._step_whole()
        else:
            self._step_pieces()
        return loss

    @torch.no_grad()
    def _step_whole(self) -> None:
        """`torch.optim.Muon.step` with all matrices of a shape orthogonalised at once: nets have dozens of them."""
        for group in self.parts[0].param_groups:
            matrices = [matrix for matrix in group["params"] if matrix.grad is not None]
            if not matrices:
                continue
            gradients = [matrix.grad for matrix in matrices]
            momenta = [self._momentum(matrix, matrix.grad) for matrix in matrices]
            torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
            updates = torch._foreach_lerp(gradients, momenta, group["momentum"]) if group["nesterov"] else momenta
            torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
            alike: dict[torch.Size, list[int]] = {}
            for index, update in enumerate(updates):
                alike.setdefault(update.shape, []).append(index)
            for shape, indices in alike.items():
                orthogonal = orthogonalised(torch.stack([updates[index] for index in indices]), group)
                rate = group["lr"] * 0.2 * math.sqrt(max(shape))  # "match_rms_adamw"
                torch._foreach_add_([matrices[index] for index in indices], orthogonal.unbind(), alpha=-rate)

    def _momentum(self, matrix: Tensor, gradient: Tensor) -> Tensor:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        return state["momentum_buffer"]

    @torch.no_grad()
    def _step_pieces(self) -> None:
        """`torch.optim.Muon.step` where a rank has pieces of matrices: elementwise on these, but for the
        orthogonalisation.
        """
        for group in self.parts[0].param_groups:
            for piece in group["params"]:
                if piece.grad is None:
                    continue
                momentum = self._momentum(piece, piece.grad)
                momentum.lerp_(piece.grad, 1 - group["momentum"])
                update = piece.grad.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum.clone()
                for matrix, put in self.assemble(piece, update):
                    orthogonal = orthogonalised(matrix[None], group)[0]
                    put(orthogonal.mul_(0.2 * math.sqrt(max(matrix.shape))))  # "match_rms_adamw"
                piece.mul_(1 - group["lr"] * group["weight_decay"])
                piece.add_(update, alpha=-group["lr"])

    def load_state_dict(self, state_dict: dict) -> None:
        """Restore both parts."""
        super().load_state_dict(state_dict)
        self._share()


def orthogonalised(matrices: Tensor, settings: Mapping[str, Any]) -> Tensor:
    """Nearly the nearest orthogonal matrices, by Newton and Schulz's iteration in bfloat16, as `torch.optim.Muon` with
    the same `ns_coefficients`, `ns_steps` and `eps`: (N, rows, columns) -> the same. In float32 on a CPU that would
    have to imitate bfloat16, where a product takes 40 times as long.
    """
    linear, cubic, quintic = settings["ns_coefficients"]
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(_quick_type(matrices.device))
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=settings["eps"])
    for _ in range(settings["ns_steps"]):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=cubic, alpha=quintic), x, beta=linear)
    return (x.mT if tall else x).to(matrices.dtype)


def _quick_type(device: torch.device) -> torch.dtype:
    # true from AVX-512 on: torch multiplies bfloat16 matrices one number at a time without
    imitated = device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.float32 if imitated else torch.bfloat16


def muon(
    module: nn.Module,
    *,
    lr: float,
    total_steps: int,
    weight_decay: float = 0.05,
    momentum: float = 0.95,
    other_lr_ratio: float = 1.0,
    betas: tuple[float, float] = (0.9, 0.98),
    eps: float = 1e-8,
    warmup_steps: int = 0,
    min_lr: float = 0.0,
    schedule: Schedule = "cosine",
    decay: Decay = "matrices",
    layer_decay: float = 1.0,
    lr_multipliers: Mapping[str, float] | None = None,
    decay_fraction: float = 0.2,
) -> dict:
    """Build Muon with AdamW and its step-wise schedule in the form Lightning expects.

    lr is that of the hidden matrices; embeddings, convolutions, norms, biases, temperatures and matrices with fewer
    than 16 rows or columns (heads of a few classes) go to AdamW at lr * other_lr_ratio. layer_decay and lr_multipliers
    act on both, as in `adamw`. Raises ValueError as `adamw` does, where there is no hidden matrix, and for
    decay="reference", which is a matter of AdamW.
    """
    if decay != "matrices":
        raise ValueError(f"muon has no decay={decay}, which the reference's optimizer asks for: use adamw_albef")
    factor = learning_rate(
        lr=lr,
        total_steps=total_steps,
        warmup_steps=warmup_steps,
        min_lr=min_lr,
        schedule=schedule,
        decay_fraction=decay_fraction,
    )
    groups = parameter_groups(
        module,
        lr=lr,
        weight_decay=weight_decay,
        layer_decay=layer_decay,
        lr_multipliers=lr_multipliers,
        width_power=0.5,  # steps as large as AdamW's have a spectral norm that grows with the root of the width only
    )
    matrices, others = [], []
    for group in groups:
        hidden = [p for p in group["params"] if group["weight_decay"] > 0 and p.ndim == 2 and min(p.shape) >= 16]
        chosen = {id(p) for p in hidden}
        rest = [p for p in group["params"] if id(p) not in chosen]
        if hidden:
            matrices.append({**group, "params": hidden})
        if rest:
            others.append({**group, "params": rest, "lr": group["lr"] * other_lr_ratio})
    if not matrices:
        raise ValueError("muon finds no hidden matrix to train (weight_decay must be above 0): use adamw")
    optimizer = MuonAdamW(matrices, others, momentum=momentum, betas=tuple(betas), eps=eps)
    scheduler = LambdaLR(optimizer, lambda step: factor(step) / lr)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
