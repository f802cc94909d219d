"""`trainer=fsdp`: fully sharded data parallelism (FSDP2; arXiv:2304.11277) on GPUs, or on CPU processes with gloo."""

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import lightning
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.strategies.strategy import Strategy
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from alignlab.files.shards import check_shards
from alignlab.files.weights import read_file
from alignlab.optim.muon import MuonAdamW
from alignlab.strategies.optimizer_state import named, numbered
from alignlab.strategies.sharding import shard, sharded_matrices, write_own_sums

Layout = Literal["whole", "sharded"]


class Fsdp(ModelParallelStrategy):
    """Shards parameters, gradients and optimizer states of any system over all processes.

    The system's `configure_model` builds the net as ever; the strategy then shards its units
    (`alignlab.strategies.sharding`). A step computes in the trainer's precision and averages gradients over ranks as
    DDP does.

    Args:
        checkpoint: "whole" collects everything on rank zero into one file that every other strategy and one device can
            go on from; "sharded" lets each rank write its part into a folder (`alignlab convert whole` makes one file
            of it).
        cpu_offload: keep shards, gradients and optimizer states on the host.
        reshard_after_forward: gather a unit's parameters again for its backward pass; False is faster and keeps them.
        timeout_minutes: how long a rank waits for the others.
    """

    def __init__(
        self,
        *,
        checkpoint: Layout = "whole",
        cpu_offload: bool = False,
        reshard_after_forward: bool = True,
        timeout_minutes: float = 30.0,
    ) -> None:
        if checkpoint not in ("whole", "sharded"):
            raise ValueError(f"checkpoint={checkpoint} is none of whole, sharded")
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=checkpoint == "sharded",
            timeout=timedelta(minutes=timeout_minutes),
        )
        self.cpu_offload, self.reshard_after_forward = cpu_offload, reshard_after_forward
        self.num_units = 0

    def setup_environment(self) -> None:
        """Joins the processes; all of them share the data."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: lightning.Trainer) -> None:
        """Shards the system, then builds its optimizer on the shards."""
        self.num_units = shard(
            self.lightning_module,
            self.device_mesh["data_parallel"],
            reshard_after_forward=self.reshard_after_forward,
            offload=self.cpu_offload,
        )
        super().setup(trainer)
        for optimizer in self.optimizers:
            if isinstance(optimizer, MuonAdamW):
                optimizer.assemble = sharded_matrices

    def model_to_device(self) -> None:
        """Moves what isn't sharded: with `cpu_offload` that is buffers only."""
        if not self.cpu_offload:
            super().model_to_device()
            return
        for part in self.lightning_module.modules():
            for name, buffer in part._buffers.items():
                part._buffers[name] = buffer if buffer is None else buffer.to(self.root_device)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """As a plain optimizer writes it (rank zero only), or this rank's part for a sharded checkpoint."""
        if self._save_distributed_checkpoint:
            return super().optimizer_state(optimizer)
        plain = getattr(optimizer, "_optimizer", optimizer)
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = get_optimizer_state_dict(self.model, plain, options=options)
        return numbered(state) if self.is_global_zero else {}

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Restores from one file of whatever strategy, or from a folder that this strategy wrote.

        Raises ValueError if the file fits neither model nor optimizer.
        """
        path = Path(self.broadcast(checkpoint_path))
        if path.is_dir():
            check_shards(path, "checkpoint")
            return super().load_checkpoint(path, weights_only)
        content = read_file(path, "checkpoint")
        options = StateDictOptions(full_state_dict=True, strict=self.lightning_module.strict_loading)
        try:
            set_model_state_dict(self.model, content.pop("state_dict"), options=options)
        except RuntimeError as error:
            raise ValueError(f"{path} doesn't fit the model: {error}") from error
        for optimizer, state in zip(self.optimizers, content.get("optimizer_states", ()), strict=False):
            full = named(state, optimizer, self.lightning_module)
            set_optimizer_state_dict(self.model, optimizer, optim_state_dict=full, options=options)
        return content

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        """One file written by rank zero, or a folder that all ranks write to."""
        if self._save_distributed_checkpoint:
            super().save_checkpoint(checkpoint, filepath, storage_options)
            write_own_sums(self, Path(filepath))
        else:
            Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)
