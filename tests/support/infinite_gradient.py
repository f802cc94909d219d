"""A run on the pretend device in which one gradient of one minibatch is infinite, as a function that a job calls."""

from pathlib import Path

from pretend_cuda import training
from pretend_cuda.device import entered

import torch
from lightning.pytorch.callbacks import Callback


class Infinite(Callback):
    """The first gradient that an update's first minibatch gives to a parameter is infinite."""

    def __init__(self, update: int) -> None:
        self.update, self.left, self.finite = update, 1, None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step == self.update:
            last = [p for p in pl_module.net.model.parameters() if p.requires_grad][-1]
            last.register_hook(self._broken)

    def on_exception(self, trainer, pl_module, exception) -> None:
        self.finite = all(bool(p.detach().to("cpu").isfinite().all()) for p in pl_module.net.parameters())

    def _broken(self, gradient: torch.Tensor) -> torch.Tensor | None:
        self.left -= 1
        return gradient * torch.inf if self.left >= 0 else None


def run(folder: Path, overrides: list[str], update: int) -> dict:
    """How it ended, whether weights and checkpoint are finite, and how many gradients followed the infinite one."""
    poison = Infinite(update)
    result = training.train(folder, [x.replace("{jobs}", str(folder.parent)) for x in overrides], [poison])
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True, map_location="cpu")
    numbers = [*saved["state_dict"].values(), *_moments(saved["optimizer_states"])]
    return {
        "status": result.status,
        "reason": result.reason,
        "weights are finite": poison.finite,
        "checkpoint is finite": all(bool(x.isfinite().all()) for x in numbers if x.is_floating_point()),
        "gradients after": -poison.left,
    }


def zeroed(folder: Path) -> list[list[list[float]]]:
    """What `zero_unless` leaves of some numbers with True and with False, in two dtypes."""
    from alignlab.methods.rlhf.update import zero_unless

    found = []
    with entered():
        for keep in (True, False):
            numbers = [
                torch.tensor([1.5, torch.inf, torch.nan, -2.0]).to("cuda", dtype)
                for dtype in (torch.float32, torch.bfloat16)
            ]
            zero_unless(torch.full((), keep, device="cuda"), numbers)
            found.append([x.float().nan_to_num(7.0, 8.0).tolist() for x in numbers])
    return found


def _moments(states: list[dict]) -> list[torch.Tensor]:
    return [x for s in states for one in s["state"].values() for x in one.values() if isinstance(x, torch.Tensor)]
