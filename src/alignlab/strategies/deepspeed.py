"""`trainer=deepspeed`: ZeRO stages 1 to 3 with offload (arXiv:1910.02054; arXiv:2101.06840), on GPUs or on CPU
processes with gloo.
"""

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import lightning
import torch
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy
from lightning.pytorch.strategies.strategy import Strategy
from torch.optim import Optimizer

from alignlab.files.shards import check_zero
from alignlab.files.weights import read_file
from alignlab.optim.muon import MuonAdamW
from alignlab.strategies import zero_state
from alignlab.strategies.sharding import write_own_sums

Layout = Literal["whole", "sharded"]
Result = TypeVar("Result")
LARGEST_BUCKET = 50_000_000  # elements
EVEN = 2  # ZeRO aligns its buckets to this many elements


class DeepSpeed(DeepSpeedStrategy):
    """ZeRO: every process keeps its part of the optimizer states (stage 1), of the gradients too (2), of the
    parameters too (3).

    Args:
        stage: 1, 2 or 3.
        offload_optimizer: keep optimizer states and their step on the host (compiles DeepSpeed's CPU Adam at the first
            use).
        offload_parameters: keep parameters on the host; stage 3 only.
        checkpoint: "whole" collects everything on rank zero into one file that every other strategy and one device can
            go on from; "sharded" leaves DeepSpeed's own folder.
        persist_below: stage 3 keeps parameters of fewer elements whole on every rank.
        bucket_elements: elements that are reduced or gathered at once; None: an eighth of the model's, at most 50
            million. Even. Stage 3 keeps a buffer of this size.
        timeout_minutes: how long a rank waits for the others.

    Raises:
        ValueError: the extra is missing, or settings that don't go together.
    """

    def __init__(
        self,
        *,
        stage: Literal[1, 2, 3] = 2,
        offload_optimizer: bool = False,
        offload_parameters: bool = False,
        checkpoint: Layout = "whole",
        persist_below: int = 100_000,
        bucket_elements: int | None = None,
        timeout_minutes: float = 30.0,
    ) -> None:
        if importlib.util.find_spec("deepspeed") is None:
            raise ValueError("trainer=deepspeed needs the extra: pip install 'alignlab[deepspeed]'")
        if stage not in (1, 2, 3) or checkpoint not in ("whole", "sharded"):
            raise ValueError(f"stage={stage} must be 1, 2 or 3, checkpoint={checkpoint} whole or sharded")
        if offload_parameters and stage != 3:
            raise ValueError(f"offload_parameters=true needs stage=3, not {stage}")
        if bucket_elements is not None and (bucket_elements < EVEN or bucket_elements % EVEN):
            raise ValueError(f"bucket_elements={bucket_elements} must be even and positive")
        if not torch.cuda.is_available():
            _quiet_cpu()
        super().__init__(
            stage=stage,
            offload_optimizer=offload_optimizer,
            offload_parameters=offload_parameters,
            overlap_comm=torch.cuda.is_available(),
            allgather_bucket_size=bucket_elements or LARGEST_BUCKET,
            reduce_bucket_size=bucket_elements or LARGEST_BUCKET,
            timeout=timedelta(minutes=timeout_minutes),
        )
        self.config["zero_optimization"]["stage3_param_persistence_threshold"] = persist_below
        self.config["zero_force_ds_cpu_optimizer"] = False  # torch's AdamW steps on the host just as well
        self.whole, self.bucket_elements = checkpoint == "whole", bucket_elements
        self.order: list[
            list[torch.nn.Parameter]
        ] = []  # the optimizer's parameters by group, before ZeRO flattens them

    @property
    def root_device(self) -> torch.device:
        """DeepSpeed reads the index as the device's rank, which a plain CPU device lacks."""
        device = super().root_device
        return torch.device("cpu", 0) if device.type == "cpu" else device

    def setup_environment(self) -> None:
        """As Lightning's, which refuses CPUs."""
        if super().root_device.type != "cpu":
            super().setup_environment()
            return
        DDPStrategy.setup_environment(self)

    def setup_distributed(self) -> None:
        """As Lightning's, which asks for indices of devices."""
        if super().root_device.type != "cpu":
            super().setup_distributed()
            return
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    @contextmanager
    def model_sharded_context(self) -> Iterator[None]:
        """Builds the net whole on every rank; ZeRO partitions it afterwards, so that all strategies start from equal
        weights.
        """
        self._init_config_if_needed()
        yield

    def setup(self, trainer: lightning.Trainer) -> None:
        """As Lightning's, with buckets that suit the model."""
        if self.bucket_elements is None:
            elements = sum(p.numel() for p in self.lightning_module.parameters())
            bucket = max(EVEN, min(LARGEST_BUCKET, elements // 8 // EVEN * EVEN))
            self.config["zero_optimization"] |= {"allgather_bucket_size": bucket, "reduce_bucket_size": bucket}
        super().setup(trainer)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """As Lightning's; a system that does passes and steps within (`as_forward`) isn't a pass itself."""
        if self.lightning_module.automatic_optimization:
            return super().training_step(*args, **kwargs)
        with self.precision_plugin.train_step_context():
            return self.lightning_module.training_step(*args, **kwargs)

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        """As `training_step`."""
        if self.lightning_module.automatic_optimization:
            return super().validation_step(*args, **kwargs)
        with self.precision_plugin.val_step_context():
            return self.lightning_module.validation_step(*args, **kwargs)

    def optimizer_step(self, optimizer: Optimizer, closure: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
        """As Lightning's; a system that steps by itself goes to DeepSpeed's engine for it, and only counts here."""
        if self.lightning_module.automatic_optimization:
            return super().optimizer_step(optimizer, closure, *args, **kwargs)
        return closure()

    def as_forward(self, call: Callable[[], Result]) -> Result:
        """Does `call` as a forward pass of the engine; what it returns may have a gradient if it is a tensor."""
        results: list[Result] = []

        def keep() -> Any:
            results.append(call())
            return results[0] if isinstance(results[0], torch.Tensor) else None

        module = self.lightning_module
        output = self._forward_redirection(self.model, module, "as_forward", keep)
        return results[0] if output is None else output

    def _init_optimizers(self) -> tuple[Optimizer, Any]:
        optimizer, scheduler = super()._init_optimizers()
        if isinstance(optimizer, MuonAdamW):
            optimizer.assemble = lambda piece, update: zero_state.matrices(self._zero, piece, update)
        self.order = [list(group["params"]) for group in optimizer.param_groups]
        return optimizer, scheduler

    @property
    def _zero(self) -> Any:
        """ZeRO's optimizer; None without training."""
        optimizer = self.deepspeed_engine.optimizer
        return optimizer if hasattr(optimizer, "optimizer") else None

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """All weights in full precision on rank zero; what is nobody's to write otherwise."""
        return zero_state.weights(self.lightning_module, self._zero) if self.whole else {}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """As a plain optimizer writes it; all ranks take part."""
        return zero_state.optimizer_state(self._zero, self.order) if self.whole else {}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        """One file written by rank zero, or DeepSpeed's folder."""
        if self.whole:
            Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)
        else:
            super().save_checkpoint(checkpoint, filepath, storage_options)
            write_own_sums(self, Path(filepath))

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Restores from one file of whatever strategy, or from a folder that DeepSpeed wrote.

        Raises ValueError if the file fits neither model nor optimizer.
        """
        path = Path(self.broadcast(checkpoint_path))
        if path.is_dir():
            check_zero(path, "checkpoint")
            return super().load_checkpoint(path, weights_only)
        content = read_file(path, "checkpoint")
        zero_state.load_weights(
            self.lightning_module, self._zero, content.pop("state_dict"), self.lightning_module.optional_weights()
        )
        states = content.get("optimizer_states", ())
        if states and self.lightning_module.trainer.training:
            zero_state.load_optimizer_state(self._zero, self.order, states[0])
        return content


def _quiet_cpu() -> None:
    """Selects DeepSpeed's CPU backend, without its shared-memory operator, which takes most of a minute to compile."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
