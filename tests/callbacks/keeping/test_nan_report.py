"""The first number that isn't finite ends a run before the optimizer's step, and the module where it came up is named."""

import json
from collections.abc import Callable
from pathlib import Path

import kills
from alignlab.callbacks.keeping.nan_report import NanReport, watched
from alignlab.runs import train as run
from alignlab.systems.diverged import Diverged

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from omegaconf import DictConfig
from torch import nn
from torch.utils.data import DataLoader

Prepare = Callable[..., DictConfig]
SMALL = (*kills.TINY, "data.num_workers=0", "trainer.max_steps=8", "trainer.val_check_interval=3")


class BreaksGradient(torch.autograd.Function):
    """The identity, with a gradient that isn't finite."""

    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * torch.inf


def break_module(monkeypatch: pytest.MonkeyPatch, kind: type[nn.Module], step: int, change: Callable) -> None:
    """From training step `step` on, the last module of a kind changes its output."""
    forward = kind.forward

    def broken(self: nn.Module, *args: object, **settings: object) -> object:
        output = forward(self, *args, **settings)
        return change(output) if broken.on else output

    broken.on = False
    monkeypatch.setattr(kind, "forward", broken)
    from alignlab.systems.method_system import MethodSystem as System

    training_step = System.training_step

    def counted(self: System, batch: object, batch_idx: int) -> torch.Tensor:
        broken.on = self.trainer.global_step >= step
        return training_step(self, batch, batch_idx)

    monkeypatch.setattr(System, "training_step", counted)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: x / 0.0, "loss is nan at step 5: first in net.encoder.image_projection (output)"),
        # the layer's own output has a good gradient; what it gives to the one before hasn't
        (
            BreaksGradient.apply,
            "gradient is nan at step 5: first in net.encoder.vision.norm (gradient of output)",
        ),
    ],
    ids=["loss", "gradient"],
)
def test_module_and_step_are_named(
    prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable, reason: str
) -> None:
    class Projection(nn.Linear):
        """A layer of its own kind, to be broken alone."""

    break_module(monkeypatch, Projection, 5, change)
    from alignlab.models.albef import AlbefEncoder

    build = AlbefEncoder.__init__

    def built(self: AlbefEncoder, *args: object, **settings: object) -> None:
        build(self, *args, **settings)
        self.image_projection.__class__ = Projection

    monkeypatch.setattr(AlbefEncoder, "__init__", built)
    result = run.train(prepared(tmp_path, *SMALL))
    assert (result.status, result.reason, result.steps) == ("diverged", reason, 5)
    assert json.loads((tmp_path / "result.json").read_text())["objective"] is None
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 3
    assert all(x.isfinite().all() for x in saved["state_dict"].values() if x.is_floating_point())


def test_a_healthy_run_is_not_disturbed(prepared: Prepare, tmp_path: Path) -> None:
    run.train(prepared(tmp_path / "with", *SMALL, "callbacks=[default,gradients]", "trainer.gradient_clip_val=1.0"))
    run.train(prepared(tmp_path / "without", *SMALL, "callbacks.nan_report=null", "trainer.gradient_clip_val=1.0"))
    assert kills.unequal(tmp_path / "with", tmp_path / "without") == []
    row = kills.rows(tmp_path / "with")[-1]
    assert float(row["train/gradient_norm"]) > 0 and 0 <= float(row["train/clipped_share"]) <= 1


class Overflows(pl.LightningModule):
    """A linear layer whose gradient overflows in one step, or whose loss is no number in one."""

    def __init__(self, gradient_at: int = -1, loss_at: int = -1) -> None:
        super().__init__()
        self.net, self.gradient_at, self.loss_at, self.seen = nn.Linear(2, 1), gradient_at, loss_at, []
        self.net.weight.register_hook(lambda g: g * torch.inf if len(self.seen) - 1 == self.gradient_at else g)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.seen.append(self.net.weight.detach().clone())
        return self.net(batch).float().square().mean() * (torch.nan if batch_idx == self.loss_at else 1.0)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_an_overflow_is_the_business_of_float16s_scaler() -> None:
    def fit(module: pl.LightningModule) -> None:
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        trainer = pl.Trainer(
            accelerator="cpu", devices=1, max_steps=5, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[NanReport()], plugins=[MixedPrecision("16-mixed", "cpu", scaler)],
        )  # fmt: skip
        trainer.fit(module, DataLoader([torch.ones(2, 2)] * 5, batch_size=None))

    module = Overflows(gradient_at=2)
    fit(module)
    assert torch.equal(module.seen[3], module.seen[2]), "the step was left out"
    assert module.net.weight.isfinite().all() and not torch.equal(module.seen[4], module.seen[3])
    with pytest.raises(Diverged, match="loss is nan at step 3"):
        fit(Overflows(loss_at=3))


def test_every_module_is_watched_in_order() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Sequential(nn.Linear(2, 2)))
    net[0].weight.data.fill_(torch.inf)
    with watched(net) as found:
        net(torch.ones(1, 2))
    assert found[0] == "0 (output)"
    assert not net[0]._forward_hooks
