"""`backend=deepspeed`: DeepSpeed's automatic tensor parallelism, or ZeRO-Inference where a model has none; starts its
own processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

import torch

from alignlab.inference.backend import Availability
from alignlab.inference.backends.transformers import TransformersBackend
from alignlab.inference.processes.process_backend import ProcessBackend, Served
from alignlab.inference.source import OpenSource

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Mode = Literal["auto", "tensor_parallel", "zero"]
AUTO_TP = (
    "llama",
    "mistral",
    "qwen2",
    "gpt_neox",
    "opt",
    "bloom",
)  # those that were seen to give the yardstick's tokens


class DeepSpeedRank(TransformersBackend):
    """One process: transformers' model with its parameters cut, or fetched layer by layer, by DeepSpeed."""

    name = "deepspeed"

    def __init__(self, rank: int, ranks: int, mode: Mode, batch_size: int) -> None:
        super().__init__(batch_size, device="cpu")  # DeepSpeed moves what it needs
        self.rank, self.ranks, self.mode = rank, ranks, mode

    def fetch(self, opened: OpenSource) -> PreTrainedModel:
        import deepspeed

        if (
            not torch.cuda.is_available()
        ):  # its shared-memory sum dies of a segmentation fault, and takes 40 s to compile
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        model, kind = super().fetch(opened), opened.config.model_type
        heads = {opened.config.num_attention_heads, getattr(opened.config, "num_key_value_heads", None) or self.ranks}
        fits = kind in AUTO_TP and not any(count % self.ranks for count in heads)
        splits = self.mode == "tensor_parallel" or (self.mode == "auto" and fits)
        return self._split(model, kind) if splits else self._zero(model)

    def _split(self, model: PreTrainedModel, kind: str) -> PreTrainedModel:
        """Automatic tensor parallelism: whole matrices are loaded, then cut."""
        import deepspeed

        if kind == "gpt2":
            raise ValueError("mode=tensor_parallel: DeepSpeed cannot split GPT-2; use mode=zero")
        heads = model.config.num_attention_heads
        if heads % self.ranks:
            limit = f"DeepSpeed splits {heads} heads evenly only, not over {self.ranks} processes"
            raise ValueError(f"processes={self.ranks}: {limit}; use backend=tensor_parallel or mode=zero")
        settings = {
            "tensor_parallel": {"tp_size": self.ranks},
            "dtype": model.dtype,
            "replace_with_kernel_inject": False,
        }
        module = deepspeed.init_inference(model, config=settings).module
        if kind == "bloom":
            module.transformer.register_forward_pre_hook(_with_mask, with_kwargs=True)
        return module

    def _zero(self, model: PreTrainedModel) -> PreTrainedModel:
        """ZeRO-Inference: every rank keeps its part of each parameter in host memory and gathers a
        layer as it comes.
        """
        import deepspeed

        settings = {
            "train_micro_batch_size_per_gpu": 1,  # demanded, though nothing trains
            "zero_optimization": {
                "stage": 3,
                "offload_param": {"device": "cpu"},
                "stage3_param_persistence_threshold": 0,
            },
            "bf16": {"enabled": model.dtype == torch.bfloat16},
        }
        return deepspeed.initialize(model=model, config=settings)[0].module


class DeepSpeedBackend(ProcessBackend):
    """DeepSpeed as it works without its CUDA kernels; on a CPU too.

    Args:
        processes: how many ranks.
        mode: `tensor_parallel` (Llama, NeoX, OPT, BLOOM; even head counts), `zero` (any), or `auto`: the first where
            it fits.
        batch_size: requests that run together.
    """

    name = "deepspeed"

    def __init__(self, processes: int = 2, mode: Mode = "auto", batch_size: int = 32) -> None:
        super().__init__(processes)
        if mode not in ("auto", "tensor_parallel", "zero"):
            raise ValueError(f"mode={mode} must be one of auto, tensor_parallel, zero")
        self.mode, self.batch_size = mode, batch_size
        self.environment = {} if torch.cuda.is_available() else {"DS_ACCELERATOR": "cpu"}
        self.environment |= {"LOCAL_SIZE": str(processes), "DS_LOG_LEVEL": os.environ.get("DS_LOG_LEVEL", "error")}

    def available(self) -> Availability:
        if find_spec("deepspeed") is None:
            return Availability(False, "needs DeepSpeed: pip install 'alignlab[deepspeed]'")
        return Availability(True, "DeepSpeed is installed")

    def rank(self) -> Callable[[int, int], Served]:
        return partial(_served, mode=self.mode, batch_size=self.batch_size)


def _with_mask(transformer: torch.nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """BLOOM makes its ALiBi of all heads where it gets no mask; DeepSpeed has replaced the way with a mask only."""
    if kwargs.get("attention_mask") is None:
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        past = kwargs.get("past_key_values")
        length = ids.shape[1] + (past.get_seq_length() if past is not None else 0)
        kwargs["attention_mask"] = ids.new_ones(len(ids), length)
    return args, kwargs


def _served(rank: int, ranks: int, mode: Mode, batch_size: int) -> Served:
    return Served(DeepSpeedRank(rank, ranks, mode, batch_size))
