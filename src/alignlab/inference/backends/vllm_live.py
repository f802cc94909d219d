"""Weights of a model that is being trained, for vLLM's engine in the same process, by its own protocol of weight
transfer: start, update, finish.

The engine takes the tensors as they lie in memory; nothing goes through a file, a pipe or another process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alignlab.inference.native.weights import plain_name

TRANSFER = "alignlab_live"  # our engine's name in vLLM's register


def live_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All parameters by the names of the base model's files, one at a time; LoRA's updates are added in.

    Shared ones come under all of their names: an engine that packs its output layer doesn't look at the embedding
    again.

    Args:
        model: a transformers model, or PEFT's around one.
    """
    adapted = {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if ".lora_" in name:
            continue
        tensor, owner = parameter.detach(), name.removesuffix(".base_layer.weight")
        module = adapted.get(owner) if owner != name else None
        if module is not None:
            for adapter in module.active_adapters if not module.disable_adapters and not module.merged else ():
                tensor = tensor + module.get_delta_weight(adapter).detach().to(tensor.dtype)
        yield plain_name(name), tensor


def send(model: nn.Module, engine: Any) -> None:
    """Gives a live model's weights to an engine that was made with `transfer`, which forgets what it computed with
    older ones.

    To be done each time: nothing tells whether they have changed, since fused optimizers leave the tensors' counters of
    changes alone.
    """
    engine.collective_rpc("start_weight_update")
    engine.collective_rpc("update_weights", kwargs={"update_info": {"model": model}})
    engine.collective_rpc("finish_weight_update")
    engine.reset_prefix_cache()


def transfer() -> Any:
    """vLLM's config that makes its worker, in this process, take weights from `send`.

    Raises:
        ValueError: this vLLM has no such protocol, or one of other words.
    """
    try:
        from vllm.config import WeightTransferConfig
        from vllm.distributed.weight_transfer.base import (
            WeightTransferEngine,
            WeightTransferInitInfo,
            WeightTransferUpdateInfo,
        )
        from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
    except ImportError as error:
        raise ValueError(
            f"backend=vllm: this vLLM can't take weights from a training ({error}); it was built against 0.32"
        ) from error

    @dataclass
    class Nothing(WeightTransferInitInfo):
        """There is nothing to agree on."""

    @dataclass
    class Live(WeightTransferUpdateInfo):
        """What has them."""

        model: nn.Module

    class LiveEngine(WeightTransferEngine):
        """Reads the parameters of a model of this process."""

        init_info_cls, update_info_cls = Nothing, Live

        def init_transfer_engine(self, init_info: Nothing) -> None:
            pass

        def start_weight_update(self) -> None:
            initialize_layerwise_reload(self.model)

        def finish_weight_update(self) -> None:
            finalize_layerwise_reload(self.model, self.model_config)

        def update_weights(self, update_info: dict[str, Any]) -> None:
            self.receive_weights(self.parse_update_info(update_info))

        def receive_weights(self, update_info: Live) -> None:
            with torch.no_grad():
                self.model.load_weights(live_tensors(update_info.model))

        def shutdown(self) -> None:
            pass

    if TRANSFER not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(TRANSFER, LiveEngine)
    return WeightTransferConfig(backend=TRANSFER)
